"""Whether a GPU library may round the factors of float32 products: a switch that there is once for a process.

Backends and threads that differ in it share the switch, so float32 comes first: while anyone computes in it, it is off,
which ``precision="tf32"`` allows (it may round, and need not). When nobody is left it is as it was found. Where the
switch is off anyway, entering and leaving costs a lock and a look.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any


class Rounding:
    """A library's switch, held right for all who compute.

    Parameters
    ----------
    get, set : callable
        Read and set the switch.
    off, on : object
        What to set for float32, and for TF32; anything that is not ``on`` does not round.

    Attributes
    ----------
    floats, rounded : context managers
        To be entered around work in float32, and around work in TF32: by any thread, also within each other.
    """

    def __init__(self, get: Callable[[], Any], set: Callable[[Any], Any], off: Any, on: Any) -> None:
        self.get, self.off, self.on = get, off, on
        self.lock = Lock()
        self.users = [0, 0]  # those in float32, and those in TF32
        self.found: tuple[Any] | None = None  # how the switch was before it was touched
        self._set = set
        self.floats, self.rounded = Use(self, 0), Use(self, 1)

    def settle(self) -> None:
        """Set the switch as those who compute now need it, with the lock held."""
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


class Use:
    """A context of a `Rounding`, which keeps nothing for whoever entered it; 45 are entered in a step of LeNet."""

    def __init__(self, rounding: Rounding, kind: int) -> None:
        self._rounding, self._kind = rounding, kind

    def __enter__(self) -> None:
        rounding = self._rounding
        with rounding.lock:
            rounding.users[self._kind] += 1
            if self._kind or rounding.get() == rounding.on:
                rounding.settle()

    def __exit__(self, *raised: object) -> None:
        rounding = self._rounding
        with rounding.lock:
            rounding.users[self._kind] -= 1
            if rounding.found is not None:
                rounding.settle()
