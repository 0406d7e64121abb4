"""One recording of a step: which calls it fits, and how it is replayed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ...common.types import Array
from ..origins import copy_maker
from .arguments import description, form_of, with_arrays
from .guards import Counter
from .recorder import Recorder, Replay
from .slots import ABSENT, Slot


@dataclass(frozen=True)
class Number:
    """A number of Python that a replay reads from an array.

    Attributes
    ----------
    slot : Slot
    array : array
        0-d, the number as a recording reads it.
    kind : type
        int or float.
    changes : bool
        Whether a replay changes it.
    """

    slot: Slot
    array: Array
    kind: type
    changes: bool


@dataclass(frozen=True)
class Unread:
    """In place of the array that a slot held before a recording, which a replay does not read: what it must be like."""

    state: Any


@dataclass
class Recording:
    """A recorded step.

    Attributes
    ----------
    recorder : Recorder
    form : object
        The form of the arguments that it was recorded for.
    fixed : list of Slot and value
        The slots that no step changes.
    arguments : list of array
        Where it reads the arguments.
    slots, before, after : list
        The other slots, and the values that they held before and after the step was recorded.
    counters : list of Counter
    numbers : list of Number
    replay : Replay
    result : object
        What the step returned.
    """

    recorder: Recorder
    form: Any
    fixed: list[tuple[Slot, Any]]
    arguments: list[Array]
    slots: list[Slot]
    before: list[Any]
    after: list[Any]
    counters: list[Counter]
    numbers: list[Number]
    replay: Replay
    result: Any

    def __post_init__(self) -> None:
        self._results: list[Array] = []
        form_of(self.result, self.recorder.owns, self._results)
        # The present values of the slots and of the numbers.
        self._now: list[Any] = []
        self._read: list[Any] = []
        self._changing = [slot.counter is None for slot in self.slots]

    def fits(self) -> bool:
        """Whether the state has the settings, shapes and memory layouts of the recording."""
        for slot, value in self.fixed:
            if slot.get() != value:
                return False
        self.look()
        for number, value in zip(self.numbers, self._read, strict=True):
            if type(value) is not number.kind:
                return False
        for changes, value, old, new in zip(self._changing, self._now, self.before, self.after, strict=True):
            # Another memory layout may have sums in another order; the step is then run without the recording.
            if value is not old and changes and not (value is new and isinstance(old, Unread)):
                wanted = old.state if isinstance(old, Unread) else state(old, self.recorder)
                if state(value, self.recorder) != wanted:
                    return False
        return True

    def look(self) -> None:
        """Read the state, which `run` starts from."""
        self._read = [number.slot.get() for number in self.numbers]
        self._now = [slot.get() for slot in self.slots]

    def begin(self, arrays: list[Array]) -> bool:
        """Copy the arguments to where a replay reads them; returns whether it would decide as the step does now.

        The state must fit (`fits`), or be that of a recording just made (`look`).
        """
        with self.replay.in_order():
            for own, array in zip(self.arguments, arrays, strict=True):
                self.recorder.write(own, array)
            return self.replay.fits()

    def run(self) -> Any:
        """Replay it; returns copies of the results."""
        recorder, now = self.recorder, self._now
        with self.replay.in_order():
            pairs = [
                (old, value)
                for old, value in zip(self.before, now, strict=True)
                if old is not value and type(old) is not Unread
            ]
            for old, value in moves(pairs, self.before, recorder) if pairs else ():
                recorder.write(old, value)
            for counter in self.counters:
                if (number := counter.slot.get()) != counter.value:
                    recorder.write(counter.array, recorder.number(number))
                    counter.value = number
            for each, value in zip(self.numbers, self._read, strict=True):
                recorder.write(each.array, value)
            self.replay()
            for each in self.numbers:
                if each.changes:
                    each.slot.set(each.kind(each.array))
            for slot, changes, value, new in zip(self.slots, self._changing, now, self.after, strict=True):
                if value is not new and changes and new is not ABSENT:
                    slot.set(new)
            for counter in self.counters:
                counter.value += counter.step
                counter.slot.set(counter.value)
            copies = [recorder.copy(array) for array in self._results]
            for array, copy in zip(self._results, copies, strict=True):
                copy_maker(array, copy)
            self._now = []
            return with_arrays(self.result, recorder.owns, iter(copies))


def state(value: Any, recorder: Recorder) -> Any:
    """What of a slot's value a recording depends on, an array's memory layout included."""
    return description(value, recorder.owns), layout(value, recorder)


def layout(value: Any, recorder: Recorder) -> Hashable:
    """The memory layout of an array; None for anything else."""
    return recorder.layout(value) if recorder.owns(value) else None


def moves(pairs: list[tuple[Any, Any]], targets: list[Any], recorder: Recorder) -> list[tuple[Array, Array]]:
    """Of pairs of old and new values the arrays that differ, new ones to be copied into old ones, one after another.

    A new array that is a target itself, or a view of one, may be overwritten before it is read, so it is copied first.
    """
    owns, found = recorder.owns, []
    known = {id(old) for old in targets if owns(old)}
    for old, new in pairs:
        if owns(old) and owns(new) and new is not old:
            safe = id(new) not in known and not recorder.is_view(new)
            found.append((old, new if safe else recorder.copy(new)))
    return found
