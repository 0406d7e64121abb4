"""Whether a GPU library may round the factors of float32 products: a setting of the whole process.

Backends and threads that differ in it share the setting. float32 has priority: rounding is off while any thread
computes in it, which ``precision="tf32"`` allows (it may round, but need not). When no thread computes, the setting is
as it was found. If it is off already, entering and leaving costs one lock and one read.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any


class Rounding:
    """A library's setting, switched as the threads that compute need it.

    Parameters
    ----------
    get, set : callable
        Read and change the setting.
    off, on : object
        The values for float32 and for TF32; any value other than ``on`` does not round.

    Attributes
    ----------
    floats, rounded : context managers
        To be entered around work in float32 and around work in TF32, by any thread, also nested.
    """

    def __init__(self, get: Callable[[], Any], set: Callable[[Any], Any], off: Any, on: Any) -> None:
        self.get, self.off, self.on = get, off, on
        self.lock = Lock()
        self.users = [0, 0]  # in float32 and in TF32
        self.found: tuple[Any] | None = None  # the setting before it was changed
        self._set = set
        self.floats, self.rounded = RoundingContext(self, 0), RoundingContext(self, 1)

    def update(self) -> None:
        """Change the setting to what the current users need; the caller has the lock."""
        now = self.get()
        self.found = self.found or (now,)
        if self.users[0]:
            wanted = self.off if now == self.on else now
        elif self.users[1]:
            wanted = self.on
        else:
            (wanted,), self.found = self.found, None
        if now != wanted:
            self._set(wanted)


class RoundingContext:
    """A context of a `Rounding`, without state of its own; a training step of LeNet enters it 45 times."""

    def __init__(self, rounding: Rounding, kind: int) -> None:
        self._rounding, self._kind = rounding, kind

    def __enter__(self) -> None:
        rounding = self._rounding
        with rounding.lock:
            rounding.users[self._kind] += 1
            if self._kind or rounding.get() == rounding.on:
                rounding.update()

    def __exit__(self, *raised: object) -> None:
        rounding = self._rounding
        with rounding.lock:
            rounding.users[self._kind] -= 1
            if rounding.found is not None:
                rounding.update()
