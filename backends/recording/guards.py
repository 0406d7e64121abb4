"""Checks inside a recording: code calls these before it does what a replay can't repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock
from typing import Any

from ...common.types import Array
from .slots import Slot

#: Acquired while a step is recorded, and by code that would break a recording of another thread.
RECORDING = RLock()


class CaptureError(RuntimeError):
    """A step does what a recording can't repeat; the message has the cause and what to do."""


class NumberRead(CaptureError):
    """Python reads a number that changes from call to call (`Slot.varies`)."""


class NumberChanged(CaptureError):
    """An uncompiled run of the step changed a number of Python; ``result`` is what it returned."""

    result: Any = None


@dataclass
class Counter:
    """A number that a step only adds to, and that a recording keeps on the device.

    Attributes
    ----------
    slot : Slot
    holder : object
        The object that counts, such as a random stream.
    array : array
        The number on the device.
    value : int
        What the array holds.
    step : int
        What one run of the step adds.
    """

    slot: Slot
    holder: Any
    array: Array
    value: int
    step: int = 0


@dataclass(frozen=True)
class _Mode:
    """A recording, or its rehearsal: ids of all that holds state, and counters by the ids of their holders."""

    known: frozenset[int]
    counters: dict[int, tuple[Any, int]]
    records: bool


_mode: ContextVar[_Mode | None] = ContextVar("xpnn_recording", default=None)


@contextmanager
def guarded(slots: Iterable[Slot], counters: Iterable[Counter] = (), records: bool = True) -> Iterator[None]:
    """Within the ``with`` block, this thread runs a step with that state to record it, or to rehearse the recording."""
    arrays = {id(counter.holder): (counter.array, counter.value) for counter in counters}
    token = _mode.set(_Mode(frozenset(slot.place[0] for slot in slots), arrays, records))
    try:
        yield
    finally:
        _mode.reset(token)


def in_recording() -> bool:
    """Whether this thread records a step, or rehearses a recording."""
    return _mode.get() is not None


def require_repeatable(what: str) -> None:
    """Raise `CaptureError` inside a recording, because a replay would not do ``what`` again."""
    mode = _mode.get()
    if mode is not None and mode.records:
        raise CaptureError(f"a compiled step can't repeat this: {what}")


def require_owned(holder: Any, what: str) -> None:
    """Raise `CaptureError` inside a recording that was not given ``holder``, whose state is about to change."""
    mode = _mode.get()
    if mode is not None and mode.records and id(holder) not in mode.known:
        raise CaptureError(
            f"a compiled step changes {what}, which it was not given: backend.compile(step, model, optimizer)"
        )


def counted(holder: Any) -> tuple[Array, int] | None:
    """The array with the number that ``holder`` counts, and that number as the step begins.

    None outside of a recording, and in one that was not given the holder.
    """
    mode = _mode.get()
    return None if mode is None else mode.counters.get(id(holder))
