"""Recorded calls on the CPU, and how they are made again: one after another, and items of a group on worker threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from ...common.types import Array
from ..execution.one_blas_thread import one_blas_thread
from ..execution.workers import workers
from ..recording.calls import Call
from ..recording.tape import Entry, Group, Tape
from ..recording.traced import traced_arrays

# Seconds of work from which items run in parallel: waking a worker takes up to 0.1 ms.
WORTH_SHARING = 2e-4
# Entries of both factors below which a matrix product surely takes one thread of BLAS.
LEAST_SHARED = 4096
_PRODUCTS = (np.matmul, np.vecdot, np.dot, np.tensordot, np.einsum, np.inner, np.ndarray.dot)


class Calls:
    """Recorded calls, and the memory that they use; implements `xpnn.backends.recording.recorder.Replay`."""

    def __init__(self, tape: Tape, arena: Array) -> None:
        self._decisions, self._arena = tape.decisions, arena
        self._calls = _merged([_shared(each) if isinstance(each, Group) else _bound(each) for each in tape.entries])
        self._needs_settings = not all(map(_needs_none, self._calls))

    def __call__(self) -> None:
        """Make all calls, with matrix products on one thread."""
        if not self._needs_settings:
            for call in self._calls:
                call()
            return
        with one_blas_thread, np.errstate(all="ignore"):
            for call in self._calls:
                call()

    def settle(self) -> None:
        """Make all calls, and decide by the time they take which items are worth sharing among threads."""
        calls, self._calls = self._calls, []
        with one_blas_thread, np.errstate(all="ignore"):
            for call in calls:
                started = perf_counter()
                call()
                if isinstance(call, SharedLanes) and perf_counter() - started < WORTH_SHARING:
                    self._calls.extend(each for lane in call.lanes for each in lane)
                else:
                    self._calls.append(call)

    @property
    def launches(self) -> int:
        """The number of calls."""
        return sum(sum(map(len, call.lanes)) if isinstance(call, SharedLanes) else 1 for call in self._calls)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory of all results."""
        return int(self._arena.nbytes)

    def fits(self) -> bool:
        """Whether Python would decide as it did in the recording."""
        return not self._decisions or all(test(*arrays) == found for test, arrays, found in self._decisions)

    def in_order(self) -> AbstractContextManager[None]:
        """Nothing: a call is over when it returns."""
        return nullcontext()


class SharedLanes:
    """Lists of calls that run on worker threads at the same time."""

    def __init__(self, lanes: list[list[Callable[[], Any]]]) -> None:
        self.lanes = lanes

    def __call__(self) -> None:
        workers.run(len(self.lanes), self._run)

    def _run(self, lane: int) -> None:
        for call in self.lanes[lane]:
            call()


def _needs_none(call: Callable[[], Any]) -> bool:
    """Whether a call multiplies no matrices by a library and warns of nothing: a copy, or an engine's call."""
    return getattr(call, "func", None) is np.copyto or getattr(call, "needs_no_settings", False)


def _bound(entry: Entry) -> Callable[[], Any]:
    function, args, keywords = entry
    return partial(function, *args, **keywords) if args or keywords else function


def _shared(group: Group) -> SharedLanes:
    return SharedLanes(
        [_merged([_bound(entry) for entry in lane if not isinstance(entry, Group)]) for lane in group.lanes]
    )


def _merged(calls: list[Call]) -> list[Call]:
    """Calls, adjacent ones joined where they can be: see `xpnn.backends.recording.calls.record`."""
    found: list[Call] = []
    for call in calls:
        merge = getattr(found[-1], "merged", None) if found else None
        both = None if merge is None else merge(call)
        if both is None:
            found.append(call)
        else:
            found[-1] = both
    return found


def with_threads(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """A product outside of `one_blas_thread` keeps the threads of BLAS, which may change its bits."""
    is_product = any(each in _PRODUCTS for each in (function, *args) if callable(each))
    small = sum(array.size for array in traced_arrays(args)) < LEAST_SHARED
    return partial(_outside, function) if is_product and not small and not one_blas_thread.is_inside else function


def _outside(function: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    one_blas_thread.__exit__(None, None, None)
    try:
        function(*args, **keywords)
    finally:
        one_blas_thread.__enter__()
