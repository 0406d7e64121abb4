"""A step recorded once and replayed: what `Backend.compile` gives where the device can record.

A recording fixes the addresses of arrays and all that Python decides: numbers, branches, which array a name refers to.
In a replay no Python code of the step runs. So a compiled step is given the *owners* of the state that the step changes
(models, optimizers), which list that state as *slots*, and keeps four rules:

- Arguments are copied into the recording's arrays before a replay; results are copied out after it.
- Where the step puts a new array into a slot, its entries are copied into the old array at the end of the recording, so
  that the next replay starts from them. An array that was put into a slot between two replays is copied in before the
  second one.
- A recording holds for one set of Python numbers (learning rate, training or evaluation); other values need another
  recording. The step runs uncompiled a few times for each set first, so a set that does not recur is never recorded.
- A number that the step itself changes can't be fixed. If the step only adds to it, as draws do to the position in a
  random stream, it is a *counter*: a recording reads it from the device and adds to it there, and after a replay the
  same is added to the Python number. For any other such number `CaptureError` names it, and for transfers between host
  and device too.

The last uncompiled run is a rehearsal: it does all that the recording will do, so that no kernel is compiled or loaded
for the first time during a recording.

A `Recorder` does what depends on the device; nothing else in this file does.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Protocol

import numpy as np

from ..common.types import Array, dtype_name
from . import origins

#: Plain runs of a step before it is recorded: they compile kernels and make what is made on first use. The last of them
#: is the rehearsal.
WARMUP = 2
#: Recordings kept of one step, each with its memory; the one used longest ago goes first.
KEPT = 4
# Calls of one step that were not repeated, after which its owner is told that nothing is replayed.
_PATIENCE = 32


@dataclass(frozen=True)
class _Mode:
    """What a step is run for: a recording, or its rehearsal.

    ``known`` are ids of what holds state, ``counters`` the arrays of what counts, by id, with the number that each
    holds as the step begins.
    """

    known: frozenset[int]
    counters: dict[int, tuple[Any, int]]
    records: bool


#: Held while a step is recorded, and by whoever does what would break a recording of another thread.
RECORDING = RLock()

_mode: ContextVar[_Mode | None] = ContextVar("xpnn_recording", default=None)


class CaptureError(RuntimeError):
    """A step does what a recording can't repeat; the message says what, and what to do instead."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


#: What a slot holds when there is nothing of its name.
ABSENT = _Absent()


@dataclass(frozen=True)
class Slot:
    """A place that holds an array or a number of Python between steps.

    ``place``, the holder's id and the name within, identifies the slot. ``counter``, for an integer to which a step
    only adds, returns the object that passes itself to `counted`. ``own`` is called before a recording, which writes
    into the array: it replaces an array that other code may hold, and expects not to change, by a copy. A step never
    changes a ``fixed`` slot, which decides how the step computes.
    """

    name: str
    place: tuple[int, str]
    get: Callable[[], Any]
    set: Callable[[Any], None]
    counter: Callable[[], Any] | None = None
    own: Callable[[], None] | None = None
    fixed: bool = False

    @classmethod
    def attribute(cls, name: str, holder: Any, key: str, own: Callable[[], None] | None = None) -> Slot:
        """The slot of an attribute."""
        place = id(holder), key
        return cls(name, place, lambda: getattr(holder, key), lambda value: setattr(holder, key, value), own=own)

    @classmethod
    def constant(cls, name: str, holder: Any, key: str, get: Callable[[], Any]) -> Slot:
        """The slot of what decides how a step computes, and what no step changes."""
        return cls(name, (id(holder), key), get, lambda value: None, fixed=True)

    @classmethod
    def item(cls, name: str, holder: Any, key: str, own: Callable[[], None] | None = None) -> Slot:
        """The slot of an entry of a mapping."""
        place = id(holder), key
        return cls(name, place, lambda: holder[key], lambda value: holder.__setitem__(key, value), own=own)


class Owner(Protocol):
    """What has state that a step changes: layers and optimizers."""

    def slots(self) -> Iterator[Slot]:
        """All of it."""


class Replay(Protocol):
    """A recording that can be run again."""

    def __call__(self) -> None:
        """Run it once."""

    @property
    def launches(self) -> int:
        """Kernels, copies and fills in it."""

    def in_order(self) -> AbstractContextManager[None]:
        """Entered around a call and the copies before and after it, which wait for those of the last call."""


class Recorder(Protocol):
    """How a device records, replays and copies."""

    def context(self) -> AbstractContextManager[None]:
        """Entered around every call of a compiled step."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Replay]:
        """What ``work`` returns, with nothing computed yet, and what computes it, each time it is called."""

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of the device."""

    def copy(self, array: Array) -> Array:
        """A copy without gaps and in the same memory order, which nothing else writes to."""

    def write(self, target: Array, source: Array) -> None:
        """Copy the entries of ``source`` into ``target``."""

    def number(self, value: int) -> Array:
        """An int64 array of no axes."""

    def empty_like(self, array: Array) -> Array:
        """An uninitialised array that the same kernels serve: of the same strides and alignment."""

    def layout(self, array: Array) -> Hashable:
        """Its memory layout, on which the choice of kernels and the order of their sums may depend."""

    def repeats(self, array: Array) -> bool:
        """Whether several entries share memory, as of a broadcast array, so that it can't be written to."""


def in_recording() -> bool:
    """Whether a step is being recorded, or rehearsed for it."""
    return _mode.get() is not None


def require_repeatable(what: str) -> None:
    """Raise `CaptureError` inside a recording, for ``what`` would not be done again by a replay."""
    mode = _mode.get()
    if mode is not None and mode.records:
        raise CaptureError(f"a compiled step can't repeat this: {what}")


def require_owned(holder: Any, what: str) -> None:
    """Raise `CaptureError` inside a recording that was not given ``holder``, which is about to change."""
    mode = _mode.get()
    if mode is not None and mode.records and id(holder) not in mode.known:
        raise CaptureError(
            f"a compiled step changes {what}, which it was not given: backend.compile(step, model, optimizer)"
        )


def counted(counter: Any) -> tuple[Array, int] | None:
    """Where a recording keeps what ``counter`` counts: an array, and the number that it holds as the step begins.

    None where there is no recording, and in one that was not given it.
    """
    mode = _mode.get()
    return None if mode is None else mode.counters.get(id(counter))


@contextmanager
def _watching(slots: Iterable[Slot], counts: Iterable[_Count] = (), records: bool = True) -> Iterator[None]:
    counters = {id(count.counter): (count.array, count.value) for count in counts}
    token = _mode.set(_Mode(frozenset(slot.place[0] for slot in slots), counters, records))
    try:
        yield
    finally:
        _mode.reset(token)


@dataclass
class _Count:
    """A counter: what counts, the array that does so on the device, what it holds, and how far a step moves it."""

    slot: Slot
    counter: Any
    array: Array
    value: int
    step: int = 0


@dataclass
class _Recording:
    """One recording: what it is for, where it reads and writes, and how it is run."""

    form: Any
    fixed: list[tuple[Slot, Any]]
    arguments: list[Array]
    slots: list[Slot]
    before: list[Any]
    counts: list[_Count]
    replay: Replay
    after: list[Any] = field(default_factory=list)
    result: Any = None


class CompiledStep:
    """A step that is recorded and replayed, with the results of the step.

    Parameters
    ----------
    step : callable
        Takes and returns arrays, numbers, and tuples, lists and dicts of them; it may not write to its arguments. In a
        replay its Python code does not run: no ``print``, no ``append`` to a list; what is wanted must be returned.
    owners : sequence of Owner
        Whatever the step changes: models, optimizers, streams of random numbers that it draws from by itself. An
        optimizer that counts steps counts them on the device from now on.
    recorder : Recorder

    Attributes
    ----------
    recorded, replayed : int
        How often so far.

    Raises
    ------
    CaptureError
        From a call, for a step that can't be recorded. The state is then that after uncompiled runs of the calls before
        it; the call itself counts only where the message is about a number that the step changed.
    """

    def __init__(self, step: Callable[..., Any], owners: Iterable[Owner], recorder: Recorder) -> None:
        self.step, self.owners, self.recorder = step, list(owners), recorder
        for owner in self.owners:
            if not callable(getattr(owner, "slots", None)):
                raise TypeError(f"compile: what follows the step must be models and optimizers, got {owner!r}")
            # What an optimizer counts with numbers of Python is frozen in a recording.
            if callable(prepare := getattr(owner, "count_on_device", None)):
                prepare()
        self.recorded = self.replayed = 0
        # The one used last is last. Not a dict: hashing all settings of a model takes long.
        self._recordings: list[_Recording] = []
        self._runs: OrderedDict[Any, int] = OrderedDict()
        self._singles = 0
        # One thread at a time: each call goes on from the state that the one before it left.
        self._lock = RLock()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """The step's results, in arrays of the caller's own."""
        if in_recording():
            # A part of a step that is recorded as a whole.
            return self.step(*args, **keywords)
        with self._lock, self.recorder.context():
            return self._call(args, keywords)

    def _call(self, args: Any, keywords: Any) -> Any:
        arrays: list[Array] = []
        form = _form((args, keywords), self.recorder.owns, arrays), tuple(map(self._layout, arrays))
        for place in reversed(range(len(self._recordings))):
            recording = self._recordings[place]
            if recording.form == form and self._fits(recording):
                self._recordings.append(self._recordings.pop(place))
                return self._replay(recording, arrays)
        slots = self._slots()
        values = [slot.get() if slot.counter is None else "counter" for slot in slots]
        for slot, value in zip(slots, values, strict=True):
            if _is_array(value) and not self.recorder.owns(value):
                raise TypeError(
                    f"{slot.name} is no array of the backend that this step was compiled for, but one of "
                    f"{type(value).__module__.partition('.')[0]}: move its model there with model.to(...), or compile "
                    "the step with the model's own backend"
                )
        key = (form, tuple(map(self._state, values)))
        if self._runs.get(key, 0) < WARMUP:
            return self._run(key, slots, args, keywords, arrays)
        recording = self._record(form, slots, args, keywords, arrays)
        self._recordings.append(recording)
        del self._recordings[:-KEPT]
        return self._replay(recording, arrays)

    @property
    def launches(self) -> int | None:
        """Kernels, copies and fills in one replay of the recording that was used last; None before there is one."""
        return self._recordings[-1].replay.launches if self._recordings else None

    def _layout(self, value: Any) -> Hashable:
        return self.recorder.layout(value) if self.recorder.owns(value) else None

    def _state(self, value: Any) -> Any:
        return _description(value, self.recorder.owns), self._layout(value)

    def _slots(self) -> list[Slot]:
        return list({slot.place: slot for owner in self.owners for slot in owner.slots()}.values())

    def _run(self, key: Any, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> Any:
        """A plain run, which shows what numbers the step changes."""
        if self._runs.get(key, 0) == WARMUP - 1:
            result = self._rehearse(slots, args, keywords, arrays)
        else:
            before = [slot.get() for slot in slots]
            result = self.step(*args, **keywords)
            self._require_constant(slots, before)
        self._singles = 0 if key in self._runs else self._singles + 1
        if self._singles == _PATIENCE:
            warnings.warn(
                f"{_PATIENCE} calls of a compiled step had different shapes or settings each (a learning rate that "
                "changes at every step is one): it runs as if not compiled",
                stacklevel=4,
            )
        self._runs[key] = self._runs.pop(key, 0) + 1
        while len(self._runs) > 2 * _PATIENCE:
            self._runs.popitem(last=False)
        return result

    def _require_constant(self, slots: list[Slot], before: list[Any]) -> None:
        for slot, old in zip(slots, before, strict=True):
            new = slot.get()
            arrays = self.recorder.owns(old) or self.recorder.owns(new)
            frozen = not arrays and slot.counter is None
            if frozen and _description(new, self.recorder.owns) != _description(old, self.recorder.owns):
                raise CaptureError(
                    f"the step changes a number of Python, {slot.name} from {old!r} to {new!r}, which a recording "
                    "would freeze. Optimizers that count steps take capturable=True; a schedule's step() belongs after "
                    "the compiled step"
                )

    def _prepared(
        self, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]
    ) -> tuple[list[Array], Any, Any, list[_Count]]:
        """Arguments of a recording's own, the call with these, and its counters; slots can be written to after it."""
        for slot in slots:
            if slot.own is not None:
                slot.own()
            value = slot.get()
            if self.recorder.owns(value) and self.recorder.repeats(value):
                slot.set(self.recorder.copy(value))
        own = [self.recorder.empty_like(array) for array in arrays]
        for target, array in zip(own, arrays, strict=True):
            self.recorder.write(target, array)
            origins.passed_on(array, target)
        args, keywords = _replaced((args, keywords), self.recorder.owns, iter(own))
        counts = [
            _Count(slot, slot.counter(), self.recorder.number(slot.get()), slot.get())
            for slot in slots
            if slot.counter is not None
        ]
        return own, args, keywords, counts

    def _rehearse(self, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> Any:
        """A plain run that does what a recording does, but writes back into copies."""
        _, args, keywords, counts = self._prepared(slots, args, keywords, arrays)
        before = [slot.get() for slot in slots]
        with _watching(slots, counts, records=False):
            result = self.step(*args, **keywords)
        self._require_constant(slots, before)
        owns = self.recorder.owns
        pairs = [(old, slot.get()) for slot, old in zip(slots, before, strict=True)]
        for old, new in self._moves(pairs, before):
            if _description(old, owns) == _description(new, owns):
                self.recorder.write(self.recorder.empty_like(old), new)
        self._move_on(counts)
        return result

    def _record(self, form: Any, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> _Recording:
        """Record the step on the recording's own arguments, then the copies of new arrays into the slots' old ones."""
        own, args, keywords, counts = self._prepared(slots, args, keywords, arrays)
        before = [slot.get() for slot in slots]

        def work() -> tuple[Any, list[Any]]:
            result = self.step(*args, **keywords)
            _form(result, self.recorder.owns, [])
            self._require_constant(slots, before)
            after = self._write_back(slots, before)
            self._move_on(counts)
            return result, after

        try:
            with _watching(slots, counts):
                (result, after), replay = self.recorder.record(work)
        except BaseException:
            _put_back(slots, before)
            raise
        for count in counts:
            # Nothing was drawn yet.
            count.slot.set(count.value)
        self.recorded += 1
        fixed = [(slot, value) for slot, value in zip(slots, before, strict=True) if slot.fixed]
        slots, before, after = (
            [each for slot, each in zip(slots, of_slots, strict=True) if not slot.fixed]
            for of_slots in (slots, before, after)
        )
        return _Recording(form, fixed, own, slots, before, counts, replay, after, result)

    def _moves(self, pairs: list[tuple[Any, Any]], targets: list[Any]) -> list[tuple[Array, Array]]:
        """Of pairs of old and new values, the arrays that differ, with what may be copied there one after the other.

        An array that is a target itself, or a view of one, may be overwritten before it is read: it is copied first.
        """
        owns, moves = self.recorder.owns, []
        known = {id(old) for old in targets if owns(old)}
        for old, new in pairs:
            if owns(old) and owns(new) and new is not old:
                safe = id(new) not in known and getattr(new, "base", None) is None
                moves.append((old, new if safe else self.recorder.copy(new)))
        return moves

    def _write_back(self, slots: list[Slot], before: list[Any]) -> list[Any]:
        """Copy new arrays of slots into those they held before, and put these back; returns what slots hold then."""
        owns, after, pairs = self.recorder.owns, [], []
        for slot, old in zip(slots, before, strict=True):
            new = slot.get()
            if owns(old) and owns(new) and new is not old:
                if _description(old, owns) != _description(new, owns):
                    raise CaptureError(f"the step changes the shape or dtype of {slot.name}, which a recording can't")
                pairs.append((old, new))
                slot.set(old)
                new = old
            after.append(new)
        for old, new in self._moves(pairs, before):
            self.recorder.write(old, new)
        return after

    def _move_on(self, counts: list[_Count]) -> None:
        """Move counters on the device as far as their numbers of Python were moved."""
        for count in counts:
            count.step = count.slot.get() - count.value
            if count.step:
                self.recorder.write(count.array, count.array + count.step)

    def _fits(self, recording: _Recording) -> bool:
        if any(slot.get() != value for slot, value in recording.fixed):
            return False
        for slot, old in zip(recording.slots, recording.before, strict=True):
            now = slot.get()
            # Another memory layout may have sums in another order: a plain run computes with it as it is.
            if now is not old and slot.counter is None and self._state(now) != self._state(old):
                return False
        return True

    def _replay(self, recording: _Recording, arrays: list[Array]) -> Any:
        with recording.replay.in_order():
            for own, array in zip(recording.arguments, arrays, strict=True):
                self.recorder.write(own, array)
            pairs = [(old, slot.get()) for slot, old in zip(recording.slots, recording.before, strict=True)]
            for old, now in self._moves(pairs, recording.before):
                self.recorder.write(old, now)
            for count in recording.counts:
                if (now := count.slot.get()) != count.value:
                    self.recorder.write(count.array, self.recorder.number(now))
                    count.value = now
            recording.replay()
            for slot, new in zip(recording.slots, recording.after, strict=True):
                if slot.counter is None and slot.get() is not new and new is not ABSENT:
                    slot.set(new)
            for count in recording.counts:
                count.value += count.step
                count.slot.set(count.value)
            self.replayed += 1
            found: list[Array] = []
            _form(recording.result, self.recorder.owns, found)
            copies = [self.recorder.copy(array) for array in found]
            for array, copy in zip(found, copies, strict=True):
                origins.passed_on(array, copy)
            return _replaced(recording.result, self.recorder.owns, iter(copies))

    def __repr__(self) -> str:
        return f"CompiledStep({self.step!r}, recorded={self.recorded}, replayed={self.replayed})"


def _put_back(slots: list[Slot], values: list[Any]) -> None:
    for slot, value in zip(slots, values, strict=True):
        if value is not ABSENT:
            slot.set(value)


def _description(value: Any, owns: Callable[[Any], bool]) -> Any:
    """What a recording takes for granted of a value: form of an array, all of a number."""
    if owns(value):
        return tuple(value.shape), dtype_name(value.dtype)
    # An array of another backend has moved there since the recording, which it does not fit.
    return ("foreign", id(value)) if _is_array(value) else _number(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.generic)


def _number(value: Any) -> Any:
    """A number in a form to compare: 0.0 and -0.0 differ, and NaN is equal to itself."""
    if isinstance(value, np.generic):
        return value.dtype.name, _number(value.item())
    return value.hex() if isinstance(value, float) else value


def _form(value: Any, owns: Callable[[Any], bool], arrays: list[Array]) -> Any:
    """A nest of values with descriptions for its arrays, which are appended to ``arrays``."""
    if owns(value):
        arrays.append(value)
        return "array", _description(value, owns), origins.exact(value)
    if isinstance(value, tuple | list):
        return type(value), tuple(_form(each, owns, arrays) for each in value)
    if isinstance(value, dict):
        return dict, tuple((name, _form(each, owns, arrays)) for name, each in value.items())
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        # 1, 1.0 and True are equal and not the same argument.
        return type(value), _number(value)
    raise TypeError(
        "arguments and results of a compiled step must be arrays of its backend, numbers, and tuples, lists and dicts "
        "of them, got "
        f"{type(value).__module__}.{type(value).__name__}"
    )


def _replaced(value: Any, owns: Callable[[Any], bool], arrays: Iterator[Array]) -> Any:
    """The nest with its arrays replaced, in the order in which `_form` found them."""
    if owns(value):
        return next(arrays)
    if isinstance(value, list):
        return [_replaced(each, owns, arrays) for each in value]
    if isinstance(value, tuple):
        each = [_replaced(each, owns, arrays) for each in value]
        return type(value)(*each) if hasattr(value, "_fields") else tuple(each)
    if isinstance(value, dict):
        return {name: _replaced(each, owns, arrays) for name, each in value.items()}
    return value
