"""Things that may serve one thread at a time."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerThread(Generic[T]):
    """One thing for each thread, made on first use; that of a thread that ended goes to the next new one.

    It is for what can't be destroyed at any time: to destroy a handle of a CUDA library waits for the device.

    Parameters
    ----------
    make : callable
        Makes one.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: list[T] = []
        self._local = threading.local()

    def get(self) -> T:
        """That of this thread."""
        held: _Held[T] | None = getattr(self._local, "held", None)
        if held is None:
            try:
                thing = self._free.pop()
            except IndexError:
                thing = self._make()
            held = self._local.held = _Held(thing, self._free)
        return held.thing


class _Held(Generic[T]):
    """A thread's hold on its thing, which ends with the thread."""

    def __init__(self, thing: T, free: list[T]) -> None:
        self.thing, self._free = thing, free

    def __del__(self) -> None:
        self._free.append(self.thing)
