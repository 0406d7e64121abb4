"""Items of an iterator that a background thread makes ahead of their use."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of an iterator, of which a thread makes up to ``depth`` ahead of their use; a context manager.

    An error of the iterator is raised in place of its item, with its own traceback. Leaving the context stops the
    thread after the current item. The thread belongs to its process, so a forked child can't continue an iteration of
    its parent and must start a new one.

    Parameters
    ----------
    items : iterator
    depth : int
        At least 1.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items, self._depth, self._process = items, depth, os.getpid()
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._done = self._closed = False
        self._changed = threading.Condition()
        # A daemon, so that an iteration that is neither finished nor closed does not keep the interpreter from exiting.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._make,), name="xpnn-prefetch", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if os.getpid() != self._process:
            # The thread exists only in the parent and may have held the lock during the fork.
            return
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        # The garbage collector may run this for an abandoned iteration in the thread itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._error = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if os.getpid() != self._process:
            raise RuntimeError("a forked process can't continue its parent's batches; iterate over the loader again")
        with self._changed:
            while not (self._ready or self._done):
                self._changed.wait()
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                # The error, its traceback and this frame would be a reference cycle.
                del error
        raise StopIteration

    def _make(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    while len(self._ready) >= self._depth and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
                del item
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()
