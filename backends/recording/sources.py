"""Where the memory of a traced array is from."""

from __future__ import annotations

from collections.abc import Callable

from ...common.types import Array


class Allocated:
    """The memory of an array that a recording made; deleted with the array and its last view."""

    kind = "made"

    def __init__(self, number: int, array: Array, free: Callable[[int], None]) -> None:
        self.number, self.address, self._free = number, array.ctypes.data, free

    def __del__(self) -> None:
        self._free(self.number)


class External:
    """An array that a recording was given.

    Attributes
    ----------
    array, before : array
        The array, and a copy of its entries before the recording's first write.
    used : bool
        Whether a call reads or writes it.
    """

    kind = "given"

    def __init__(self, number: int, array: Array) -> None:
        self.number, self.array, self.address = number, array, array.ctypes.data
        self.before: Array | None = None
        self.used = False
