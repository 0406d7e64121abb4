"""Worker threads for a library that computes on the CPU and releases the interpreter lock.

Work is cut into items by its shape alone, each item writes its own part of the result, and the matrix library runs on
one thread within an item: so the bits of a result do not depend on how many workers there are, and copying runs in
parallel too, which a matrix library's own threads leave to one core. Who finds the workers busy (an item of its own, a
second model in another thread) does its items itself, and who waits, waits for items and never for a thread: nothing
can lock up. A forked child has no threads and makes new ones.

``XPNN_NUM_THREADS`` says how many threads compute, the caller's included; unless given, as many as there are cores for
this process, by its affinity and the quota of its control group.
"""

import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import cache
from itertools import count
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController

from ...common import environment
from ...common.cores import available_cores

VARIABLE = environment.NUM_THREADS
Work = Callable[[int], None]


def thread_count() -> int:
    """How many threads compute.

    Raises
    ------
    ValueError
        If ``XPNN_NUM_THREADS`` is set to anything but an integer of at least 1.
    """
    return _given(os.environ.get(VARIABLE, ""))


@cache
def _given(text: str) -> int:
    # The text is what the cache goes by; every layer asks.
    given = environment.value(VARIABLE) if text else None
    return available_cores() if given is None else int(given)


class Held(threading.local):
    """Entered around many calls, it prolongs the first `one_thread` block of this thread to its own end.

    Setting the threads of matrix libraries takes 5 to 15 microseconds, entering a block within such a block 1.
    """

    depth = 0
    entered = False

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *raised: object) -> None:
        self.depth -= 1
        if self.entered and not self.depth:
            self.entered = False
            one_thread.__exit__(None, None, None)


held = Held()


class OneThread:
    """Within the ``with`` block, matrix libraries that were loaded before the first use run on one thread.

    Blocks may overlap, in one thread or several: the first to enter looks up the settings, the last to leave puts them
    back.
    """

    def __init__(self) -> None:
        self._reset()
        self._libraries: list[Any] | None = None

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        if held.depth and not held.entered:
            held.entered = True
            self._enter()
        self._enter()

    def _enter(self) -> None:
        with self._lock:
            if not self._inside:
                if self._libraries is None:
                    self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                self._before = [library.get_num_threads() for library in self._libraries]
                try:
                    for library in self._libraries:
                        _take_control(library)
                        library.set_num_threads(1)
                except BaseException:
                    self._put_back()
                    raise
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._put_back()

    def _put_back(self) -> None:
        for library, threads in zip(self._libraries or (), self._before, strict=True):
            _take_control(library)
            library.set_num_threads(threads)
            _take_control(library)

    def before_fork(self) -> None:
        """No thread is then changing settings, here or in threadpoolctl, which has a lock of its own."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork(self) -> None:
        """In the child there is only the thread that forked, outside of all blocks."""
        if self._inside:
            self._put_back()
        self._reset()


def _take_control(library: Any) -> None:
    """Let whichever thread comes next set a library's threads.

    Since version 3.8 threadpoolctl ignores all threads but the first that set them, as long as it lives; here callers
    are counted, so that the one who puts back may be another.
    """
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


class Job:
    """Items ``0 .. n - 1`` of one call, taken by whoever is free."""

    def __init__(self, n: int, work: Work) -> None:
        self._n, self._work = n, work
        self._next, self._finished = count(), count(1)
        self._done = threading.Lock()
        self._done.acquire()
        self._is_done = False
        self.error: BaseException | None = None

    def take(self) -> None:
        """Do items until none is left."""
        for item in self._next:
            if item >= self._n:
                return
            try:
                if self.error is None:
                    self._work(item)
            except BaseException as error:
                self.error = error
            if next(self._finished) == self._n:
                self._is_done = True
                self._done.release()

    def wait(self) -> None:
        """Until the last item is done; also once more, where an interrupt came as the lock was got."""
        while not self._is_done:
            self._done.acquire()


class Workers:
    """Threads that wait for items; one set for the process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._busy = threading.Lock()
        self._queue: SimpleQueue[tuple[Context, Job]] = SimpleQueue()
        self._started = 0

    def run(self, n: int, work: Work) -> None:
        """Call ``work(i)`` for ``i`` in ``range(n)``, in any order and at the same time.

        The first exception is raised once all items that had begun are done. Workers see the caller's context
        variables.
        """
        with one_thread:
            helpers = min(thread_count(), n) - 1
            if helpers < 1 or not self._busy.acquire(blocking=False):
                for item in range(n):
                    work(item)
                return
            try:
                self._share(n, work, helpers)
            finally:
                self._busy.release()

    def _share(self, n: int, work: Work, helpers: int) -> None:
        while self._started < helpers:
            try:
                threading.Thread(target=self._serve, args=(self._queue,), name="xpnn worker", daemon=True).start()
            except RuntimeError:
                # The system has no more threads, or the program is ending.
                break
            self._started += 1
        job = Job(n, work)
        for _ in range(min(helpers, self._started)):
            self._queue.put((copy_context(), job))
        job.take()
        try:
            job.wait()
        except BaseException as error:
            # An interrupt: nothing new begins, and nobody writes to the caller's arrays any more when it comes out.
            job.error = error
            job.wait()
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None

    @staticmethod
    def _serve(queue: "SimpleQueue[tuple[Context, Job]]") -> None:
        while True:
            context, job = queue.get()
            context.run(job.take)
            del context, job

    def after_fork(self) -> None:
        """The threads stayed with the parent."""
        self._reset()


one_thread = OneThread()
workers = Workers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=one_thread.before_fork,
        after_in_parent=one_thread.after_fork_in_parent,
        after_in_child=one_thread.after_fork,
    )
    os.register_at_fork(after_in_child=workers.after_fork)
