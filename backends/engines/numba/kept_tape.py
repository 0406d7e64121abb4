"""The tape of a call that is kept: compiled programs and the lifetimes of arrays; see `kept_call`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ....common.types import Array
from ...recording.calls import Call
from ...recording.guards import CaptureError
from ...recording.memory_plan import Lifetime, aligned
from ...recording.sources import Allocated
from ...recording.tape import extent
from ...recording.traced import TracedArray
from .pool import RecordedProgram, perform
from .strided_copy import copying


class CompiledTape:
    """Implements `xpnn.backends.recording.calls.Tape`, and refuses what is no compiled program."""

    def __init__(self) -> None:
        self.programs: list[RecordedProgram] = []
        self.lifetimes: list[Lifetime] = []
        self.made: list[Array] = []
        self._clock, self._is_closed = 0, False

    def new(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None, weak: bool = False
    ) -> Array:
        """An array that stays alive, so that no other one has its address."""
        dtype = np.dtype(dtype)
        before, size = extent(shape, dtype.itemsize, strides)
        memory = aligned(size)
        self._clock += 1
        self.made.append(memory)
        self.lifetimes.append(Lifetime(size, self._clock, None))
        array: Array = np.ndarray(shape, dtype, memory.data, before, strides)
        return TracedArray.over(array, Allocated(len(self.made) - 1, memory, self._free), weak)

    def _free(self, number: int) -> None:
        if not self._is_closed:
            self._clock += 1
            self.lifetimes[number].end = self._clock

    def append(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Add a copy, by a compiled program; refuse all other array functions."""
        bound = copying(args[0], args[1], _vector) if function is np.copyto and "where" not in keywords else None
        if bound is not None:
            perform(bound)
            return
        raise CaptureError(f"{function} is no compiled program")

    def append_call(self, call: Call) -> None:
        """Add a compiled program."""
        if not isinstance(call, RecordedProgram):
            raise CaptureError(f"{call} is no compiled program")
        self._clock += 1
        self.programs.append(call)

    def describe(self, value: Any) -> Any:
        """Nothing: the function is run once."""

    def written(self, array: Any) -> None:
        """Refuse to write into an argument or a constant."""
        if not isinstance(array, TracedArray) or not isinstance(array.source, Allocated):
            raise CaptureError("a kept call writes into arrays of its own only")

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        """One after the other."""
        for item in range(n):
            work(item)

    def decide(self, test: Callable[..., bool], arrays: tuple[Any, ...]) -> bool:
        """Refuse a decision by values."""
        raise CaptureError("a kept call decides by values")

    def close(self) -> None:
        """End: what exists now is in use to the end."""
        self._is_closed = True


def _vector(x: Any, n: int) -> Any:
    """The ``n`` entries from the first one of a traced array on, as they are in memory."""
    if not isinstance(x, TracedArray):
        raise CaptureError("a kept call copies arrays of its own only")
    return TracedArray.over(as_strided(x.plain, (n,), (x.itemsize,)), x.source)
