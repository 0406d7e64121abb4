"""Worker threads for a library that computes on the CPU and releases the interpreter lock.

How work is cut into items depends on shapes only, each item writes its own part of the result, and the matrix library
runs on one thread within an item. So the bits of a result do not depend on the number of workers. Copies run in
parallel too; a matrix library's own threads would leave them to one core.

No deadlock is possible: a caller that finds the workers busy (because it runs in an item itself, or another thread uses
them) does all its items itself, and nothing waits for a thread, only for items. A forked child makes new threads.
"""

import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from itertools import count
from queue import SimpleQueue

from .one_blas_thread import one_blas_thread
from .thread_count import thread_count

Work = Callable[[int], None]


class Job:
    """Items ``0 .. n - 1`` of one call, each done by the next free thread."""

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
        """Return when the last item is done; it may be called again after an interrupt, even one that has the lock."""
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
        with one_blas_thread:
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
            # An interrupt: no new item begins, and no thread writes to the caller's arrays any more when it is raised.
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
        """Reset: a child process has none of the threads."""
        self._reset()


workers = Workers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.after_fork)
