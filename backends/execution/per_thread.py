"""Objects that one thread may use at a time."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerThread(Generic[T]):
    """An object for each thread, made on first use; the next new thread reuses that of a thread that has ended.

    It is for objects that can't be destroyed at any time: destroying a handle of a CUDA library waits for the device.

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
        """The object of this thread."""
        lent: _Lent[T] | None = getattr(self._local, "lent", None)
        if lent is None:
            try:
                thing = self._free.pop()
            except IndexError:
                thing = self._make()
            lent = self._local.lent = _Lent(thing, self._free)
        return lent.thing


class _Lent(Generic[T]):
    """An object lent to a thread; it is free again when the thread ends."""

    def __init__(self, thing: T, free: list[T]) -> None:
        self.thing, self._free = thing, free

    def __del__(self) -> None:
        self._free.append(self.thing)
