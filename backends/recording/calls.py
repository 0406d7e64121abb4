"""What code that computes on the CPU calls so that it can be recorded; next to free outside of a recording.

Functions of NumPy that are passed arrays of a recording are recorded by themselves (`xpnn.backends.recording.traced`).
Other code uses

- `empty` to make an array for results;
- `record` to record a call of any kind, such as one of a compiled engine over addresses;
- `decide` for a decision of Python by values of arguments;
- `suspended` around what is made once and kept: constants and tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ...common.types import Array

Call = Callable[[], Any]


class Tape(Protocol):
    """What this module and traced arrays use of `xpnn.backends.recording.tape.Tape`."""

    def new(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None, weak: bool = False
    ) -> Array:
        """An uninitialised array in the memory of the recording."""

    def append(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Record a call of a function with these arguments."""

    def append_call(self, call: Call) -> None:
        """Record a call without arguments."""

    def describe(self, value: Any) -> Any:
        """What of an argument must be the same whenever the step is run."""

    def written(self, array: Any) -> None:
        """Note that a call is about to write into an array."""

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        """Record items that may run at the same time."""

    def decide(self, test: Callable[..., bool], arrays: tuple[Any, ...]) -> bool:
        """See `decide`."""


class _Current(threading.local):
    tape: Tape | None = None


_current = _Current()


def current() -> Tape | None:
    """The tape of the recording that this thread makes, if any."""
    return _current.tape


@contextmanager
def recording(tape: Tape | None) -> Iterator[None]:
    """Within the ``with`` block, this thread records on that tape; None records nothing."""
    before, _current.tape = _current.tape, tape
    try:
        yield
    finally:
        _current.tape = before


def suspended() -> Any:
    """A context in which nothing is recorded, for what is made once and outlives the recording."""
    return recording(None)


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised C-contiguous array, in the memory of the recording if there is one.

    In a recording it is a traced array: `traced.plain` has its address. Its memory is reused once it and all of its
    views are deleted, so it must be kept until the last call that uses it is recorded.
    """
    tape = _current.tape
    if tape is None:
        return np.empty(shape, dtype)
    return tape.new((shape,) if isinstance(shape, int) else shape, dtype)


def record(call: Call) -> None:
    """Record a call without arguments, which computes again what was just computed; nothing outside of a recording.

    It keeps alive what it needs: plain arrays (`traced.plain`) that were made by `empty` or passed in. It may have a
    method ``merged(next)``, which returns one call that does what it and the next call do, or None.
    """
    if _current.tape is not None:
        _current.tape.append_call(call)


def decide(test: Callable[..., bool], *arrays: Array) -> bool:
    """``test(*arrays)``, by which a step decides what to do.

    A recording accepts it for arguments and state that the step has not changed yet. Where the test has another result
    at a later call, that call runs the step without the recording.
    """
    tape = _current.tape
    return test(*arrays) if tape is None else tape.decide(test, arrays)
