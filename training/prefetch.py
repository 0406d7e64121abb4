"""Items made ahead of their use, on a thread in the background."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of an iterator, up to ``depth`` of them made before they are asked for; use as a context manager.

    An error of the iterator is raised where its item would have been, with its own traceback. Leaving the context stops
    the thread, after the item that it is making. The thread belongs to its process: a forked child can't go on with an
    iteration of its parent, and begins its own.

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
        # A daemon: an iteration that nobody finishes or closes must not keep the interpreter from ending.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._make,), name="xpnn-prefetch", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if os.getpid() != self._process:
            # The thread is in the other process, and the lock perhaps in its hands for ever.
            return
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        # The thread itself may be the one that clears the garbage which an abandoned iteration is.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._error = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if os.getpid() != self._process:
            raise RuntimeError("a forked process can't go on with batches of its parent; iterate the loader anew")
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
                # An error, its traceback and this frame would hold each other.
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
