"""The interface of a device that records. `xpnn.backends.cuda.graph` implements it with CUDA graphs."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...common.types import Array


class Replay(Protocol):
    """Recorded work that can be run again."""

    def __call__(self) -> None:
        """Run it once."""

    @property
    def launches(self) -> int:
        """The number of its kernels, copies and fills."""

    def in_order(self) -> AbstractContextManager[None]:
        """A context around a call and the copies before and after it, which wait for those of the last call."""


class Recorder(Protocol):
    """How a device records, replays and copies."""

    def context(self) -> AbstractContextManager[None]:
        """A context around every call of a compiled step."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Replay]:
        """What ``work`` returns, with nothing computed yet, and what computes it each time it is called."""

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of the device."""

    def copy(self, array: Array) -> Array:
        """A copy without gaps, in the same memory order, that nothing else writes to."""

    def write(self, target: Array, source: Array) -> None:
        """Copy the entries of ``source`` into ``target``."""

    def number(self, value: int) -> Array:
        """A 0-d int64 array."""

    def empty_like(self, array: Array) -> Array:
        """An uninitialised array of the same strides and alignment, so that the same kernels serve it."""

    def layout(self, array: Array) -> Hashable:
        """Its memory layout, on which the choice of kernels and the order of their sums may depend."""

    def repeats(self, array: Array) -> bool:
        """Whether several entries share memory, as in a broadcast array, so that it can't be written to."""
