"""Compiled jobs and the threads that share them: each item once, in order, through forks, interrupts and exits."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled kernels need Numba")

from xpnn.backends.engines.numba import jobs, pool, progress
from xpnn.backends.engines.numba.atomics import atomic_add, atomic_load
from xpnn.backends.engines.numba.blas import gemm, gemm_address
from xpnn.backends.engines.numba.bound import Bound, address_of
from xpnn.backends.engines.numba.jobs import INT, NUMBER, job, read, write
from xpnn.backends.execution.one_blas_thread import one_blas_thread
from xpnn.backends.execution.workers import Workers

SECONDS = 20.0
# Looks that take a minute or so: threads that meet come earlier, on a busy machine too.
LONG = 200_000_000_000
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@job(write(1, "int64"))
def count_items(item, counts):
    counts[item] += 1


@job(read(1), write(1), INT, NUMBER)
def scale(item, x, out, chunk, factor):
    for i in range(item * chunk, min((item + 1) * chunk, x.shape[0])):
        out[i] = x[i] * factor


@job(read(1), write(1))
def reverse(item, x, out):
    out[item] = x[x.shape[0] - 1 - item]


@job(write(1, "int64"), INT, INT)
def meet(item, state, parties, most):
    """Wait until so many items are at work at the same time; ``state`` is how many came, and whether all met."""
    address = state.ctypes.data
    atomic_add(address, 1)
    looks = 0
    while atomic_load(address) < parties and looks < most:
        looks += 1
    if atomic_load(address) >= parties:
        atomic_add(address + 8, 1)


@job(read(2), read(2), write(2), INT, INT, INT, uses_blas=True)
def multiply(item, a, b, c, function, left, right):
    depth = a.shape[0] if left else a.shape[1]
    a_at, b_at, c_at = a.ctypes.data, b.ctypes.data, c.ctypes.data
    gemm(
        function,
        left,
        right,
        c.shape[0],
        c.shape[1],
        depth,
        a_at,
        a.shape[1],
        b_at,
        b.shape[1],
        0,
        c_at,
        c.shape[1],
        a.dtype.type(0),
    )


@pytest.fixture
def threads(monkeypatch):
    """A function that makes a pool of so many threads; they end with the test."""
    made = []

    def make(count):
        monkeypatch.setenv("XPNN_NUM_THREADS", str(count))
        found = pool.Pool()
        made.append(found)
        return found

    yield make
    for found in made:
        found.stop()


def joined(*threads):
    for thread in threads:
        thread.join(SECONDS)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 50, 1000])
def test_each_item_is_done_once(threads, count, items):
    found, counts = threads(count), np.zeros(items, np.int64)
    for times in range(1, 4):
        found.run(count_items.bind(items, counts))
        assert counts.tolist() == [times] * items


def test_items_run_at_the_same_time(threads):
    """Each waits for the two others; threads that sleep are woken."""
    found = threads(3)
    for _ in range(3):
        # A thread may need some time to start, or to wake up.
        state = np.zeros(2, np.int64)
        found.run(meet.bind(3, state, 3, LONG))
        assert state.tolist() == [3, 3]
        deadline = time.monotonic() + SECONDS
        while not all(helper._is_asleep for helper in found._helpers):
            assert time.monotonic() < deadline, "threads without a job must sleep"
            time.sleep(0.001)


def test_one_thread_computes_in_the_caller_only(threads):
    found, state = threads(1), np.zeros(2, np.int64)
    found.run(meet.bind(4, state, 4, 1000))
    assert found._helpers == [] and state.tolist() == [4, 1]


def test_fewer_threads_take_part_when_the_setting_falls(threads, monkeypatch):
    found = threads(3)
    found.run(meet.bind(3, np.zeros(2, np.int64), 3, LONG))
    monkeypatch.setenv("XPNN_NUM_THREADS", "2")
    for _ in range(20):
        state = np.zeros(2, np.int64)
        found.run(meet.bind(3, state, 3, 20_000))
        # Two items at a time: only the last can find that all have come.
        assert state[1] <= 2


def test_jobs_of_a_program_run_one_after_another(threads):
    found, rng = threads(3), np.random.default_rng(0)
    for size in (1, 7, 4096):
        x = rng.standard_normal(size).astype(np.float32)
        y, z, w = (np.empty_like(x) for _ in range(3))
        chunk = max(1, size // 9)
        steps = [
            scale.bind(-(-size // chunk), x, y, chunk, 3.0),
            reverse.bind(size, y, z),
            scale.bind(-(-size // chunk), z, w, chunk, 0.5),
        ]
        found.run(Bound.join(steps))
        assert w.tobytes() == (x * np.float32(3.0) * np.float32(0.5))[::-1].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_job_is_compiled_for_the_dtype_of_its_arrays(dtype, threads):
    x = np.random.default_rng(0).standard_normal(100).astype(dtype)
    y = np.empty_like(x)
    threads(2).run(scale.bind(4, x, y, 25, 1 / 3))
    assert y.tobytes() == (x * dtype(1 / 3)).tobytes()


def test_job_refuses_arrays_with_gaps():
    x = np.zeros((4, 6), np.float32)[:, ::2]
    with pytest.raises(ValueError, match="scale: arguments must be C-contiguous"):
        scale.bind(1, x[0], np.zeros(3, np.float32), 3, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_product_by_the_blas_of_numpy(dtype, left, right, threads):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 7)).astype(dtype), rng.standard_normal((7, 3)).astype(dtype)
    stored = [np.ascontiguousarray(m.T if flag else m) for m, flag in ((a, left), (b, right))]
    c = np.empty((5, 3), dtype)
    threads(2).run(multiply.bind(1, *stored, c, gemm_address(dtype), left, right))
    assert np.allclose(c, a.astype("float64") @ b, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_jobs_that_multiply_run_with_one_blas_thread(monkeypatch):
    inside = []
    monkeypatch.setattr(pool.pool, "run", lambda bound: inside.append(one_blas_thread._inside))
    pool.perform(Bound([], [], uses_blas=True))
    pool.perform(Bound([], []))
    assert inside == [1, 0]


def test_two_threads_may_compute_at_once(threads):
    """A caller that finds the pool in use does its items itself."""
    found = threads(2)

    def compute(counts):
        bound = count_items.bind(len(counts), counts)
        for _ in range(500):
            found.run(bound)

    all_counts = [np.zeros(40, np.int64) for _ in range(4)]
    assert joined(*(start(compute, counts) for counts in all_counts))
    assert all(counts.tolist() == [500] * 40 for counts in all_counts)


def start(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def test_jobs_within_items_of_python_workers(threads):
    found, counts = threads(3), np.zeros((30, 20), np.int64)
    Workers().run(30, lambda i: found.run(count_items.bind(20, counts[i])))
    assert (counts == 1).all()


def test_caller_does_all_items_if_no_thread_can_start(threads, monkeypatch):
    def refuses(self):
        raise RuntimeError("can't start new thread")

    found, counts = threads(3), np.zeros(9, np.int64)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    found.run(count_items.bind(9, counts))
    assert counts.tolist() == [1] * 9 and found._helpers == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_interrupt_is_raised_after_the_job(threads):
    found, state = threads(2), np.zeros(2, np.int64)
    # Three items on two threads can't meet: they look around for tenths of a second, long after the interrupt.
    bound = meet.bind(3, state, 4, 500_000_000)
    found.run(count_items.bind(2, np.zeros(2, np.int64)))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            found.run(bound)
            time.sleep(SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert state[0] == 3
    counts = np.zeros(9, np.int64)
    found.run(count_items.bind(9, counts))
    assert counts.tolist() == [1] * 9


def test_stopped_pool_starts_again(threads):
    found, counts = threads(3), np.zeros(9, np.int64)
    for times in range(1, 4):
        found.run(count_items.bind(9, counts))
        helpers = found._helpers
        found.stop()
        assert not any(helper.thread.is_alive() for helper in helpers)
        assert counts.tolist() == [times] * 9


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_makes_new_threads(monkeypatch):
    monkeypatch.setenv("XPNN_NUM_THREADS", "3")
    counts = np.zeros(50, np.int64)
    pool.perform(count_items.bind(50, counts))
    child = os.fork()
    if not child:
        state = np.zeros(2, np.int64)
        pool.perform(meet.bind(3, state, 3, LONG))
        os._exit(0 if state.tolist() == [3, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0
    pool.perform(count_items.bind(50, counts))
    assert counts.tolist() == [2] * 50


PROGRAM = """
import os, sys, threading
import numpy as np
from xpnn.backends.engines.numba import pool
from xpnn.backends.engines.numba.jobs import job, write

@job(write(1, "int64"))
def count_items(item, counts):
    counts[item] += 1

counts = np.zeros(100, np.int64)
bound = count_items.bind(100, counts)
def work():
    while True:
        pool.perform(bound)
"""


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "threading.Thread(target=work, daemon=True).start(); import time; time.sleep(0.05)",
        "os._exit(0)",
    ],
)
def test_process_ends_while_threads_look_for_jobs(ending, tmp_path):
    code = PROGRAM + f"for _ in range(100):\n    pool.perform(bound)\n{ending}\n"
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    ended = run(tmp_path / "program.py")
    assert (ended.returncode, ended.stderr) == (0, "")


def run(program, **environment):
    settings = {**os.environ, "XPNN_NUM_THREADS": "3", **environment}
    return subprocess.run([sys.executable, program], env=settings, capture_output=True, text=True, timeout=120)


def test_compiled_job_is_kept_on_disk_until_its_file_changes(tmp_path):
    program, report = tmp_path / "program.py", "\nprint(count_items._compiled[0].cache_hits, counts.tolist()[:1])\n"
    program.write_text(PROGRAM + "pool.perform(bound)" + report)
    results = [run(program).stdout.split("\n")[0] for _ in range(2)]
    assert results == ["0 [1]", "1 [1]"]
    program.write_text((PROGRAM + "pool.perform(bound)" + report).replace("+= 1", "+= 2000"))
    assert run(program).stdout.startswith("0 [2000]")


def test_job_is_compiled_although_nothing_can_be_kept(tmp_path, monkeypatch):
    import numba

    compiler = numba.cfunc

    def refuses(*arguments, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiler(*arguments, **options)

    monkeypatch.setattr(jobs.numba, "cfunc", refuses)
    made, counts = job(write(1, "int64"))(count_items.function), np.zeros(3, np.int64)
    pool.perform(made.bind(3, counts))
    assert counts.tolist() == [1] * 3


def test_long_compilation_is_announced_once(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_said", False)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    for name in ("first", "second"):
        with progress.compiling(name):
            time.sleep(0.05)
    assert capsys.readouterr().err == "xpnn: compiling first and other kernels, once for this machine\n"
    monkeypatch.setattr(progress, "_said", False)
    monkeypatch.setattr(progress, "PATIENCE", 30.0)
    with progress.compiling("third"):
        pass
    assert capsys.readouterr().err == ""


def random_programs(found, seconds, seed):
    """Run programs of random jobs, by several Python threads, and compare with NumPy."""
    end, wrong = time.monotonic() + seconds, []

    def compute(number):
        rng = np.random.default_rng([seed, number])
        while time.monotonic() < end and not wrong:
            x = rng.standard_normal(int(rng.integers(1, 3000))).astype(np.float32)
            arrays, steps, expected = [x], [], x
            for _ in range(int(rng.integers(1, 6))):
                arrays.append(np.empty_like(x))
                if rng.random() < 0.5:
                    steps.append(reverse.bind(len(x), arrays[-2], arrays[-1]))
                    expected = expected[::-1]
                else:
                    chunk = int(rng.integers(1, len(x) + 1))
                    steps.append(scale.bind(-(-len(x) // chunk), arrays[-2], arrays[-1], chunk, 1.25))
                    expected = expected * np.float32(1.25)
            found.run(Bound.join(steps))
            if arrays[-1].tobytes() != expected.tobytes():
                wrong.append((number, len(x)))
            if rng.random() < 0.02:
                time.sleep(0.002)

    assert joined_after(seconds, *(start(compute, number) for number in range(3)))
    assert wrong == []


def joined_after(seconds, *threads):
    for thread in threads:
        thread.join(seconds + SECONDS)
    return not any(thread.is_alive() for thread in threads)


def test_random_programs(threads):
    random_programs(threads(3), 1.0, seed=0)


@pytest.mark.stress
def test_random_programs_for_minutes_beside_busy_processes(threads):
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for count in (2, 3, 8):
            random_programs(threads(count), 60.0, seed=count)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_addresses_are_those_of_the_first_entries():
    for x in (np.zeros((3, 4), np.float32), np.zeros(5, np.int8)[1:], np.zeros((), np.float64)):
        assert address_of(x) == x.ctypes.data
