"""Worker threads: their number, their context and errors, no deadlocks, and settings restored afterwards."""

import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import xpnn as nn
from xpnn.backends.execution.one_blas_thread import OneBlasThread, one_blas_thread, setup_once
from xpnn.backends.execution.thread_count import thread_count
from xpnn.backends.execution.workers import Workers
from xpnn.common.cores import available_cores

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SECONDS = 20.0
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture
def three(monkeypatch):
    """Three threads compute, however many cores there are."""
    monkeypatch.setenv("XPNN_NUM_THREADS", "3")
    return Workers()


def blas_threads():
    """The number of threads of each matrix library."""
    return [library.get_num_threads() for library in ThreadpoolController().select(user_api="blas").lib_controllers]


@pytest.fixture
def two_blas_threads(monkeypatch):
    """Matrix libraries on two threads, whatever was set, while a test runs; those loaded by now."""
    monkeypatch.setattr(one_blas_thread, "_libraries", None)
    with threadpool_limits(2, user_api="blas"):
        if 2 not in blas_threads():
            pytest.skip("no matrix library here has a setting for its threads")
        yield blas_threads()


def in_thread(function, *arguments):
    """Run beside the caller: the thread, started."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def joined(*threads):
    for thread in threads:
        thread.join(SECONDS)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "1e3", "+", "1 2", "²", "0x2"])
def test_invalid_number_of_threads_is_refused(monkeypatch, text):
    monkeypatch.setenv("XPNN_NUM_THREADS", text)
    with pytest.raises(ValueError, match="XPNN_NUM_THREADS must be an integer >= 1, got") as error:
        thread_count()
    assert repr(text) in str(error.value) and "unset it for all cores" in str(error.value)


def test_refused_number_of_threads_is_raised_and_can_be_corrected(monkeypatch):
    layer, x = nn.Conv2d(1, 1, 1), np.ones((1, 1, 2, 2), np.float32)
    monkeypatch.setenv("XPNN_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="XPNN_NUM_THREADS"):
        layer(x)
    monkeypatch.setenv("XPNN_NUM_THREADS", "2")
    assert layer(x).shape == x.shape


@pytest.mark.parametrize(("text", "threads"), [("1", 1), ("7", 7), (" 3 ", 3), ("0004", 4)])
def test_number_of_threads_is_the_one_given(monkeypatch, text, threads):
    monkeypatch.setenv("XPNN_NUM_THREADS", text)
    assert thread_count() == threads


@pytest.mark.parametrize("text", [None, ""])
def test_number_of_threads_is_that_of_the_cores_unless_given(monkeypatch, text):
    monkeypatch.delenv("XPNN_NUM_THREADS", raising=False)
    if text is not None:
        monkeypatch.setenv("XPNN_NUM_THREADS", text)
    assert thread_count() == available_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_affinity_set_before_the_start_counts():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert (
        run_python(code + "from xpnn.backends.execution.thread_count import thread_count; print(thread_count())") == "1"
    )


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_each_item_is_done_once(three, n):
    done = [0] * n

    def work(i):
        done[i] += 1

    three.run(n, work)
    assert done == [1] * n


def test_items_run_at_the_same_time(three):
    """Each waits for the two others."""
    meet = threading.Barrier(3)
    three.run(3, lambda i: meet.wait(SECONDS))


def test_one_thread_computes_in_the_caller_only(monkeypatch):
    monkeypatch.setenv("XPNN_NUM_THREADS", "1")
    seen = set()
    Workers().run(5, lambda i: seen.add(threading.get_ident()))
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, MemoryError])
def test_exception_of_an_item_is_raised_and_the_workers_continue(three, error):
    meet = threading.Barrier(3)

    def fails(i):
        meet.wait(SECONDS)
        if i == 2:
            raise error("item 2")

    for _ in range(3):
        with pytest.raises(error, match="item 2"):
            three.run(3, fails)
        test_each_item_is_done_once(three, 9)
    assert three._started == 2


def test_nothing_begins_after_an_exception(three):
    begun = []

    def fails(i):
        begun.append(i)
        raise ValueError(i)

    with pytest.raises(ValueError):
        three.run(10_000, fails)
    assert len(begun) <= 3


def test_exception_is_raised_after_items_that_had_begun_are_done(three):
    meet, finished = threading.Barrier(2), []

    def work(i):
        if i > 1:
            return
        meet.wait(SECONDS)
        if i == 0:
            raise ValueError
        time.sleep(0.02)
        finished.append(i)

    with pytest.raises(ValueError):
        three.run(2, work)
    assert finished == [1]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signals to threads")
def test_interrupt_is_raised_after_items_that_had_begun_are_done(three):
    """The caller waits, its own item done, when the interrupt comes."""
    meet, finished, how = threading.Barrier(2), [], signal.SIGINT

    def work(i):
        if i > 1:
            return
        meet.wait(SECONDS)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident, how)
            time.sleep(0.02)
            finished.append(i)

    # A shell starts background processes with interrupts ignored.
    before = signal.signal(how, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            three.run(2, work)
    finally:
        signal.signal(how, before)
    assert len(finished) == 1
    test_each_item_is_done_once(three, 9)


def test_caller_does_all_items_if_no_thread_can_start(three, monkeypatch):
    def refuses(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    test_each_item_is_done_once(three, 9)
    assert three._started == 0 and three._queue.empty()


def test_exception_says_where_it_was_raised(three):
    def here_it_is(i):
        raise ValueError

    with pytest.raises(ValueError) as error:
        three.run(3, here_it_is)
    assert "here_it_is" in [entry.name for entry in error.traceback]


def test_item_may_have_items_of_its_own(three):
    done = np.zeros((4, 5, 3), int)

    def outer(i):
        three.run(5, lambda j: three.run(3, lambda k: add(i, j, k)))

    def add(*at):
        done[at] += 1

    assert joined(in_thread(three.run, 4, outer))
    assert (done == 1).all()


def test_two_threads_may_compute_at_once(three):
    """A caller that finds the workers busy does its items itself."""
    meet, done = threading.Barrier(2), np.zeros((2, 40), int)

    def model(which):
        def work(i):
            if i == 0:
                meet.wait(SECONDS)
            done[which, i] += 1

        three.run(40, work)

    assert joined(in_thread(model, 0), in_thread(model, 1))
    assert (done == 1).all()


def test_workers_see_the_caller_s_context(three):
    variable, seen = contextvars.ContextVar("variable", default="unset"), []
    meet = threading.Barrier(3)

    def work(i):
        meet.wait(SECONDS)
        seen.append(variable.get())

    for value in ("first", "second"):
        variable.set(value)
        three.run(3, work)
    assert seen == ["first"] * 3 + ["second"] * 3


def test_numpy_s_error_state_is_the_caller_s(three):
    """A worker that warns although the caller suppresses warnings, or the reverse, is hard to notice."""
    meet = threading.Barrier(3)

    def divides(i):
        meet.wait(SECONDS)
        np.ones(2) / np.zeros(2)

    with np.errstate(all="ignore"):
        three.run(3, divides)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        three.run(3, divides)


def test_fewer_items_than_threads_start_no_more_workers_than_help(three):
    three.run(2, lambda i: None)
    assert three._started == 1


def test_matrix_libraries_run_on_one_thread_within_a_call_and_as_before_after(three, two_blas_threads):
    inside = []
    three.run(3, lambda i: inside.append(blas_threads()))
    assert all(set(found) == {1} for found in inside) and len(inside) == 3
    assert blas_threads() == two_blas_threads


def test_matrix_libraries_have_their_threads_back_after_an_error(three, two_blas_threads):
    with pytest.raises(KeyboardInterrupt):
        three.run(3, raiser(KeyboardInterrupt))
    assert blas_threads() == two_blas_threads
    with pytest.raises(ValueError), one_blas_thread:
        raise ValueError
    assert blas_threads() == two_blas_threads


def raiser(error):
    def work(i):
        raise error

    return work


def test_matrix_libraries_have_their_threads_back_when_the_last_of_two_callers_leaves(two_blas_threads):
    entered, leave, found = threading.Event(), threading.Event(), []

    def other():
        with one_blas_thread:
            entered.set()
            leave.wait(SECONDS)
            found.append(blas_threads())

    thread = in_thread(other)
    assert entered.wait(SECONDS)
    with one_blas_thread, one_blas_thread:
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {1}
    leave.set()
    assert joined(thread)
    assert set(found[0]) == {1} and blas_threads() == two_blas_threads


def test_many_callers_at_once_leave_the_matrix_libraries_as_they_were(two_blas_threads):
    x = np.random.default_rng(0).standard_normal((2, 4, 16, 16)).astype(np.float32)
    layer = nn.Conv2d(4, 3, 3, seed=0)
    desired = layer(x).tobytes()

    def compute(seed):
        return [nn.Conv2d(4, 3, 3, seed=0)(x).tobytes() for _ in range(20)]

    with ThreadPoolExecutor(6) as pool:
        results = [bits for found in pool.map(compute, range(6), timeout=SECONDS) for bits in found]
    assert set(results) == {desired}
    assert blas_threads() == two_blas_threads


def test_a_block_that_could_not_be_entered_is_not_counted():
    """An interrupt between two settings must leave the first as it was."""
    block = OneBlasThread()
    first, second = Library(4), Library(4, interrupted=True)
    block._libraries = [first, second]
    with pytest.raises(KeyboardInterrupt), block:
        raise AssertionError("entered")
    assert first.threads == 4 and second.threads == 4
    second.interrupted = False
    with block:
        assert first.threads == second.threads == 1
    assert first.threads == second.threads == 4


def test_any_thread_may_compute_on_one_thread_after_another_has(two_blas_threads):
    """Also while the thread that set them first still runs."""
    found = []

    def compute():
        with one_blas_thread:
            found.append(blas_threads())

    compute()
    assert joined(in_thread(compute))
    assert all(set(threads) == {1} for threads in found) and blas_threads() == two_blas_threads


class Library:
    """A stand-in for threadpoolctl's controller of a matrix library."""

    def __init__(self, threads, interrupted=False):
        self.threads, self.interrupted = threads, interrupted

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, threads):
        if self.interrupted and threads == 1:
            raise KeyboardInterrupt
        self.threads = threads


SETUP = """
    import os, sys, threading, multiprocessing, time
    os.environ["XPNN_NUM_THREADS"] = "3"
    import numpy as np
    import xpnn as nn
    from xpnn.backends.execution.one_blas_thread import one_blas_thread
    from xpnn.backends.execution.workers import workers
    x = np.random.default_rng(0).standard_normal((8, 40, 40, 32)).astype(np.float32)
    layer = nn.Conv2d(40, 40, 3, padding=1, seed=0)
    def compute():
        y = layer(x)
        return y.tobytes() + layer.backward(y).tobytes()
"""


def run_python(code):
    """The output of a program, with a time limit."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.usefixtures("array_functions")
@needs_fork
def test_forked_child_computes_with_threads_of_its_own():
    """Forked beside idle workers, from within an item, and while another thread computes."""
    code = (
        SETUP
        + """
    first = compute()
    def child(inside):
        pid = os.fork()
        if not pid:
            good = compute() == first and workers._started == 2 and inside()
            os._exit(0 if good else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(child(lambda: True))
    codes = []
    def item(i):
        if i == 1:
            codes.append(child(lambda: one_blas_thread._inside == 0))
    workers.run(3, item)
    print(codes[0])
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            compute_other()
    other = nn.Conv2d(40, 40, 3, padding=1, seed=0)
    compute_other = lambda: other(x)
    thread = threading.Thread(target=busy); thread.start()
    print(*(child(lambda: True) for _ in range(5)))
    stop.set(); thread.join()
    print(compute() == first)
    """
    )
    assert run_python(code).split() == ["0", "0", "0", "0", "0", "0", "0", "True"]


@needs_fork
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork for multiprocessing")
def test_processes_of_a_pool_compute_the_same_bits():
    code = (
        SETUP
        + """
    first = compute()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(all(pool.starmap_async(compute, [()] * 4).get(15)[i] == first for i in range(4)))
    """
    )
    assert run_python(code) == "True"


@pytest.mark.usefixtures("array_functions")
def test_program_ends_while_workers_wait():
    assert run_python(SETUP + "    print(len(compute()) > 0, workers._started)\n") == "True 2"


def test_a_block_within_setup_once_lasts_to_its_end_and_no_longer(two_blas_threads):
    with setup_once:
        assert one_blas_thread._inside == 0
        with one_blas_thread:
            assert one_blas_thread._inside == 2
        with setup_once, one_blas_thread:
            assert one_blas_thread._inside == 2
        assert one_blas_thread._inside == 1
    assert one_blas_thread._inside == 0
    with pytest.raises(ValueError), setup_once, one_blas_thread:
        raise ValueError
    assert one_blas_thread._inside == 0
