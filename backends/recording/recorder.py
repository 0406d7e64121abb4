"""The interface of a device that records.

`xpnn.backends.cuda.graph` implements it with CUDA graphs, `xpnn.backends.cpu.recorder` with lists of calls.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from ...common.types import Array

#: A step on arrays, and on numbers in arrays.
Work = Callable[[list[Array], list[Array]], Any]


class Replay(Protocol):
    """Recorded work that can be run again."""

    def __call__(self) -> None:
        """Run it once."""

    @property
    def launches(self) -> int:
        """The number of its kernels, copies and fills."""

    def fits(self) -> bool:
        """Whether Python would decide as it did in the recording, by the present values of arguments and state."""

    def in_order(self) -> AbstractContextManager[None]:
        """A context around a call and the copies before and after it, which wait for those of the last call."""


class Recorder(Protocol):
    """How a device records, replays and copies.

    Attributes
    ----------
    reads_numbers : bool
        Whether numbers of Python that change from call to call (`Slot.varies`) are read from arrays in a replay.
    rehearses : bool
        Whether a recording must not be the first to do what it does.
    """

    reads_numbers: ClassVar[bool]
    rehearses: ClassVar[bool]

    def context(self) -> AbstractContextManager[None]:
        """A context around every call of a compiled step."""

    def record(self, work: Work, given: list[Array], numbers: list[Array]) -> tuple[Any, Replay]:
        """What ``work`` returns, with nothing computed yet, and what computes it each time it is called.

        ``work`` is called with the arrays to compute with in place of ``given``, which are arguments and state, and of
        ``numbers``, which stand for numbers of Python. It may be called several times, from the same state each time.
        """

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of the device."""

    def copy(self, array: Array) -> Array:
        """A copy without gaps, in the same memory order, that nothing else writes to."""

    def write(self, target: Array, source: Array) -> None:
        """Copy the entries of ``source`` into ``target``."""

    def number(self, value: float) -> Array:
        """A 0-d array: int64 of an integer, else float64."""

    def empty_like(self, array: Array) -> Array:
        """An uninitialised array of the same strides and alignment, so that the same kernels serve it."""

    def layout(self, array: Array) -> Hashable:
        """Its memory layout, on which the choice of kernels and the order of their sums may depend."""

    def reads(self, array: Array) -> bool:
        """Within `record`, whether a replay may read an array that was given."""

    def is_view(self, array: Array) -> bool:
        """Whether it may share memory with another array."""

    def repeats(self, array: Array) -> bool:
        """Whether several entries share memory, as in a broadcast array, so that it can't be written to."""
