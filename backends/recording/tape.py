"""The tape of a recording on the CPU: the calls that a replay makes, and the memory of their results.

A step is recorded by running it with traced arrays (`xpnn.backends.recording.traced`). Each function that they are
passed to computes as usual and is put on the tape of the thread as a *call*, bound to plain arrays.

A step is run twice. The first run surveys its memory: when each array is made and freed. From that an arena is planned
(`xpnn.backends.recording.memory_plan`), in which the second run places the arrays. Both runs must make the same calls
with the same constants, though on other numbers: a call that computes from an array that was not traced, or a constant
that depends on values, is found so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...common.types import Array
from .calls import Call
from .guards import CaptureError
from .memory_plan import Lifetime, aligned
from .sources import Allocated, External
from .traced import TracedArray, plain, unwrapped

#: A call on the tape: a function with arguments, or a group of items that may run in parallel.
Entry = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Group:
    """Items that may run at the same time: a list of calls for each lane."""

    def __init__(self, lanes: int) -> None:
        self.lanes: list[list[Entry | Group]] = [[] for _ in range(lanes)]


class Tape:
    """The calls of one run, and where their arrays are.

    Parameters
    ----------
    lanes : int
        Lists of items that run in parallel at most.
    arena, offsets : array of bytes and list of int, optional
        Memory for all arrays, and where each begins in it; without them each array has memory of its own, and no call
        is kept.
    adapt : callable, optional
        Called with the function and the arguments of a call; returns the function that a replay calls.
    restores : bool
        Whether `restore` is called after the run; if not, arrays that were given are copies that nobody needs again.
    """

    def __init__(
        self,
        lanes: int = 1,
        arena: Array | None = None,
        offsets: list[int] | None = None,
        adapt: Callable[[Callable[..., Any], tuple[Any, ...]], Callable[..., Any]] = lambda function, args: function,
        restores: bool = True,
    ) -> None:
        self._adapt, self._restores = adapt, restores
        self._lanes, self._arena, self._offsets = lanes, arena, offsets
        self.entries: list[Entry | Group] = []
        self.decisions: list[tuple[Callable[..., bool], tuple[Any, ...], bool]] = []
        #: One for each array that was made, in this order.
        self.lifetimes: list[Lifetime] = []
        # Arrays that were given and written to, in the order of their first writes.
        self._saved: list[External] = []
        #: Whether the run is over: what is deleted from now on is in use to the end.
        self.closed = False
        #: What must be the same in both runs, one entry for each call.
        self.signature: list[Any] = []
        self._clock, self._into = 0, self.entries
        self._group = self._lane = -1
        self._groups = 0
        self._freed_in_group: list[Lifetime] = []

    # Arrays

    def new(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None, weak: bool = False
    ) -> TracedArray:
        """An uninitialised array in the recording's memory, C-contiguous or with these strides."""
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise CaptureError(f"a compiled step can't make arrays of {dtype}")
        before, size = extent(shape, dtype.itemsize, strides)
        number = len(self.lifetimes)
        self._clock += 1
        self.lifetimes.append(Lifetime(size, self._clock, None, self._group, self._lane))
        if self._offsets is None or self._arena is None:
            memory = aligned(size).data
        elif number >= len(self._offsets):
            raise CaptureError("a compiled step made more arrays the second time: what it does depends on values")
        else:
            # A memoryview, so that arrays are no views of one array: what made an array is recorded by its memory.
            memory = self._arena.data[self._offsets[number] : self._offsets[number] + size]
            if len(memory) < size:
                raise CaptureError(f"a compiled step made another array the second time, of shape {shape}")
        array: Array = np.ndarray(shape, dtype, memory, before, strides)
        return TracedArray.over(array, Allocated(number, array, self.free), weak)

    def free(self, number: int) -> None:
        """An array and all of its views were deleted."""
        if self.closed:
            return
        self._clock += 1
        life = self.lifetimes[number]
        life.end = self._clock
        if self._group >= 0 and life.group != self._group:
            # Items of other lanes may still read it.
            self._freed_in_group.append(life)

    # Calls

    def append(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Put a call on the tape; its arrays may be traced."""
        self.signature.append((self.describe(function), self.describe(args), self.describe(keywords)))
        if self._arena is not None:
            self._into.append((self._adapt(function, args), unwrapped(args), unwrapped(keywords)))

    def append_call(self, call: Call) -> None:
        """Put a call without arguments on the tape."""
        self.signature.append(getattr(call, "signature", getattr(call, "__qualname__", type(call).__qualname__)))
        if self._arena is not None:
            self._into.append((call, (), {}))

    def written(self, array: Any) -> None:
        """Note that a call is about to write into an array, which must be traced."""
        if not isinstance(array, TracedArray):
            raise CaptureError(
                f"a compiled step writes into an array that it did not make and was not given, of shape "
                f"{np.shape(array)}: make it with the backend's xp within the step, pass it as an argument, or keep it "
                "in a layer"
            )
        source = array.source
        if isinstance(source, External) and source.before is None:
            source.before = source.array
            if self._restores:
                source.before = source.array.copy(order="K")
                self._saved.append(source)

    def restore(self) -> None:
        """Write the entries back that were there before the run."""
        for source in reversed(self._saved):
            source.array[...] = source.before

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        """Record items that may run at the same time."""
        lanes = min(self._lanes, n)
        if lanes < 2 or self._group >= 0:
            for item in range(n):
                work(item)
            return
        group = Group(lanes)
        self._into.append(group)
        self.signature.append(("parallel", n, lanes))
        self._group, self._groups = self._groups, self._groups + 1
        try:
            for lane in range(lanes):
                self._lane, self._into = lane, group.lanes[lane]
                for item in range(n * lane // lanes, n * (lane + 1) // lanes):
                    work(item)
        finally:
            self._group, self._lane, self._into = -1, -1, self.entries
            self._clock += 1
            for life in self._freed_in_group:
                life.end = self._clock
            self._freed_in_group.clear()

    def decide(self, test: Callable[..., bool], arrays: tuple[Any, ...]) -> bool:
        """``test`` of arguments; noted, so that a replay can test whether it would be decided alike."""
        for array in arrays:
            if isinstance(array, TracedArray) and not (
                isinstance(array.source, External) and array.source.before is None
            ):
                raise CaptureError(
                    "a compiled step reads values that it computed itself, to decide what to do: "
                    f"{getattr(test, '__name__', test)}"
                )
        bound = unwrapped(arrays)
        found = test(*bound)
        if self._arena is not None:
            self.decisions.append((test, bound, found))
        self.signature.append((self.describe(test), self.describe(arrays), found))
        return found

    def finish(self, outcome: Any) -> Any:
        """End the run: what exists now is in use to the end. Returns the outcome in plain arrays."""
        self.signature.append(("results", self.describe(outcome)))
        self.closed = True
        return unwrapped(outcome)

    def describe(self, value: Any) -> Any:
        """What of an argument must be the same in both runs."""
        if isinstance(value, TracedArray):
            source = value.source
            if isinstance(source, External):
                source.used = True
            at = plain(value).ctypes.data - source.address if value.size else 0
            return source.kind, source.number, at, value.shape, value.strides, value.dtype.str
        if isinstance(value, np.ndarray | np.generic):
            # Hashed, so that the signature keeps no memory.
            digest = hashlib.blake2b(np.ascontiguousarray(value).view(np.uint8).data, digest_size=16).digest()
            return "constant", value.shape, value.dtype.str, digest
        if isinstance(value, tuple | list):
            return type(value), [self.describe(each) for each in value]
        if isinstance(value, dict):
            return {name: self.describe(each) for name, each in value.items()}
        if isinstance(value, float):
            return value.hex()
        if isinstance(value, partial):
            return partial, value.func, self.describe((value.args, value.keywords))
        if isinstance(value, slice):
            return slice, self.describe((value.start, value.stop, value.step))
        return value


def extent(shape: tuple[int, ...], itemsize: int, strides: tuple[int, ...] | None) -> tuple[int, int]:
    """Bytes before the first entry of an array, and all its bytes."""
    if 0 in shape:
        return 0, itemsize
    if strides is None:
        return 0, int(np.prod(shape, dtype=np.int64)) * itemsize
    reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    before = -sum(each for each in reach if each < 0)
    return before, before + sum(each for each in reach if each > 0) + itemsize
