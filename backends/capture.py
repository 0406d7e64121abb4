"""A step recorded once and replayed: what `Backend.compile` gives where the device can record.

A recording freezes the addresses of arrays and all that Python decides: numbers, branches, which array a name stands
for. So a compiled step knows the state that the step changes, as *slots* of the owners that it is given (models,
optimizers), and keeps four rules:

- Arguments are copied into arrays of their own before a replay; results are copied out after it.
- A slot that the step binds to a new array is written back into the old one as the last part of the recording, so that
  the next replay goes on from there. A slot that was bound anew between two replays is copied in before the second.
- Numbers of Python that differ between two calls (a learning rate, training or evaluation) are part of what a recording
  is for: another value is another recording. Each runs plainly a few times first, so what never recurs is never
  recorded and still right.
- Numbers that the step itself changes can't be frozen: an error names them. Nor can draws of random numbers, or what
  passes the doors between host and device.

What records is a `Recorder`; this file knows nothing of devices.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from .types import Array, dtype_name

#: Plain runs of a step before it is recorded: they compile kernels and make what is made on first use.
WARMUP = 2
#: Recordings kept of one step, each with its memory; the one used longest ago goes first.
KEPT = 4
# Calls of one step that were not repeated, after which its owner is told that nothing is replayed.
_PATIENCE = 32

_recording: ContextVar[frozenset[int] | None] = ContextVar("xpnn_recording", default=None)


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

    ``place`` is the holder's id and the name within, by which one place is told from another.
    """

    name: str
    place: tuple[int, str]
    get: Callable[[], Any]
    set: Callable[[Any], None]

    @classmethod
    def attribute(cls, name: str, holder: Any, key: str) -> Slot:
        """The slot of an attribute."""
        return cls(name, (id(holder), key), lambda: getattr(holder, key), lambda value: setattr(holder, key, value))

    @classmethod
    def item(cls, name: str, holder: Any, key: str) -> Slot:
        """The slot of an entry of a mapping."""
        return cls(name, (id(holder), key), lambda: holder[key], lambda value: holder.__setitem__(key, value))


class Owner(Protocol):
    """What has state that a step changes: layers and optimizers."""

    def slots(self) -> Iterator[Slot]:
        """All of it."""


class Recorder(Protocol):
    """How a device records, replays and copies."""

    def context(self) -> AbstractContextManager[None]:
        """Entered around every call of a compiled step."""

    def plainly(self) -> AbstractContextManager[None]:
        """Entered around a run that is not recorded."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What ``work`` returns, with nothing computed yet, and what computes it, each time it is called."""

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of the device."""

    def copy(self, array: Array) -> Array:
        """A copy, which nothing else writes to."""

    def write(self, target: Array, source: Array) -> None:
        """Copy the entries of ``source`` into ``target``."""


def require_repeatable(what: str) -> None:
    """Raise `CaptureError` inside a recording, for ``what`` would not be done again by a replay."""
    if _recording.get() is not None:
        raise CaptureError(f"a compiled step can't repeat this: {what}")


def require_owned(holder: Any, what: str) -> None:
    """Raise `CaptureError` inside a recording that was not given ``holder``, which is about to change."""
    known = _recording.get()
    if known is not None and id(holder) not in known:
        raise CaptureError(
            f"a compiled step changes {what}, which it was not given: backend.compile(step, model, optimizer)"
        )


@contextmanager
def _watching(slots: Iterable[Slot]) -> Iterator[None]:
    token = _recording.set(frozenset(slot.place[0] for slot in slots))
    try:
        yield
    finally:
        _recording.reset(token)


@dataclass
class _Recording:
    """One recording: what it is for, where it reads and writes, and how it is run."""

    form: Any
    arguments: list[Array]
    slots: list[Slot]
    before: list[Any]
    after: list[Any]
    result: Any
    replay: Callable[[], None]


class CompiledStep:
    """A step that is recorded and replayed, with the results of the step.

    Parameters
    ----------
    step : callable
        Takes and returns arrays, numbers, and tuples, lists and dicts of them; it may not write to its arguments.
    owners : sequence of Owner
        Whatever the step changes: models, optimizers.
    recorder : Recorder

    Attributes
    ----------
    recorded, replayed : int
        How often so far.

    Raises
    ------
    CaptureError
        From a call, for a step that can't be recorded. All state is then as a plain run of the calls so far left it.
    """

    def __init__(self, step: Callable[..., Any], owners: Iterable[Owner], recorder: Recorder) -> None:
        self.step, self.owners, self.recorder = step, list(owners), recorder
        for owner in self.owners:
            if not callable(getattr(owner, "slots", None)):
                raise TypeError(f"compile takes models and optimizers after the step, got {owner!r}")
        self.recorded = self.replayed = 0
        self._recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self._runs: OrderedDict[Any, int] = OrderedDict()
        self._singles = 0

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """The step's results, in arrays of the caller's own."""
        with self.recorder.context():
            return self._call(args, keywords)

    def _call(self, args: Any, keywords: Any) -> Any:
        arrays: list[Array] = []
        form = _form((args, keywords), self.recorder.owns, arrays)
        for recording in reversed(self._recordings.values()):
            if recording.form == form and self._fits(recording):
                return self._replay(recording, arrays)
        slots = self._slots()
        key = (form, tuple(_description(slot.get(), self.recorder.owns) for slot in slots))
        if self._runs.get(key, 0) < WARMUP:
            return self._run(key, slots, args, keywords)
        recording = self._record(form, slots, args, keywords, arrays)
        self._recordings[key] = recording
        while len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)
        return self._replay(recording, arrays)

    def _slots(self) -> list[Slot]:
        return list({slot.place: slot for owner in self.owners for slot in owner.slots()}.values())

    def _run(self, key: Any, slots: list[Slot], args: Any, keywords: Any) -> Any:
        """A plain run, which shows what numbers the step changes."""
        before = [slot.get() for slot in slots]
        with self.recorder.plainly():
            result = self.step(*args, **keywords)
        self._require_constant(slots, before)
        self._singles = 0 if key in self._runs else self._singles + 1
        if self._singles == _PATIENCE:
            warnings.warn(
                f"{_PATIENCE} calls of a compiled step had different shapes or settings each (a learning rate that "
                "changes at every step is one): it runs as if not compiled",
                stacklevel=3,
            )
        self._runs[key] = self._runs.pop(key, 0) + 1
        while len(self._runs) > 2 * _PATIENCE:
            self._runs.popitem(last=False)
        return result

    def _require_constant(self, slots: list[Slot], before: list[Any]) -> None:
        for slot, old in zip(slots, before, strict=True):
            new = slot.get()
            arrays = self.recorder.owns(old) or self.recorder.owns(new)
            if not arrays and _description(new, self.recorder.owns) != _description(old, self.recorder.owns):
                raise CaptureError(
                    f"the step changes a number of Python, {slot.name} from {old!r} to {new!r}, which a recording "
                    "would freeze. Optimizers that count steps take capturable=True; a schedule's step() belongs after "
                    "the compiled step; dropout can't be compiled"
                )

    def _record(self, form: Any, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> _Recording:
        """Record the step on arguments of its own, and after it the way back of what was bound anew."""
        own = [self.recorder.copy(array) for array in arrays]
        args, keywords = _replaced((args, keywords), self.recorder.owns, iter(own))
        before = [slot.get() for slot in slots]

        def work() -> tuple[Any, list[Any]]:
            result = self.step(*args, **keywords)
            _form(result, self.recorder.owns, [])
            self._require_constant(slots, before)
            return result, self._write_back(slots, before)

        try:
            with _watching(slots):
                (result, after), replay = self.recorder.record(work)
        except BaseException:
            for slot, old in zip(slots, before, strict=True):
                if old is not ABSENT:
                    slot.set(old)
            raise
        self.recorded += 1
        return _Recording(form, own, slots, before, after, result, replay)

    def _write_back(self, slots: list[Slot], before: list[Any]) -> list[Any]:
        owns, after, moves = self.recorder.owns, [], []
        known = {id(old) for old in before if owns(old)}
        for slot, old in zip(slots, before, strict=True):
            new = slot.get()
            if owns(old) and owns(new) and new is not old:
                if _description(old, owns) != _description(new, owns):
                    raise CaptureError(f"the step changes the shape or dtype of {slot.name}, which a recording can't")
                # An array that another slot held, or a view of one, may be overwritten before its turn.
                safe = id(new) not in known and getattr(new, "base", None) is None
                moves.append((old, new if safe else self.recorder.copy(new)))
                slot.set(old)
                new = old
            after.append(new)
        for old, new in moves:
            self.recorder.write(old, new)
        return after

    def _fits(self, recording: _Recording) -> bool:
        owns = self.recorder.owns
        for slot, old in zip(recording.slots, recording.before, strict=True):
            now = slot.get()
            if now is not old and _description(now, owns) != _description(old, owns):
                return False
        return True

    def _replay(self, recording: _Recording, arrays: list[Array]) -> Any:
        for own, array in zip(recording.arguments, arrays, strict=True):
            self.recorder.write(own, array)
        for slot, old in zip(recording.slots, recording.before, strict=True):
            now = slot.get()
            if now is not old and self.recorder.owns(old):
                self.recorder.write(old, now)
        recording.replay()
        for slot, new in zip(recording.slots, recording.after, strict=True):
            if slot.get() is not new and new is not ABSENT:
                slot.set(new)
        self.replayed += 1
        found: list[Array] = []
        _form(recording.result, self.recorder.owns, found)
        copies = iter([self.recorder.copy(array) for array in found])
        return _replaced(recording.result, self.recorder.owns, copies)

    def __repr__(self) -> str:
        return f"CompiledStep({self.step!r}, recorded={self.recorded}, replayed={self.replayed})"


def _description(value: Any, owns: Callable[[Any], bool]) -> Any:
    """What a recording takes for granted of a value: form of an array, all of a number."""
    if owns(value):
        return tuple(value.shape), dtype_name(value.dtype)
    # An array of another backend: a plain run will say what is wrong with it.
    return ("foreign", id(value)) if hasattr(value, "dtype") else value


def _form(value: Any, owns: Callable[[Any], bool], arrays: list[Array]) -> Any:
    """A nest of values with descriptions for its arrays, which are appended to ``arrays``."""
    if owns(value):
        arrays.append(value)
        return "array", _description(value, owns)
    if isinstance(value, tuple | list):
        return type(value), tuple(_form(each, owns, arrays) for each in value)
    if isinstance(value, dict):
        return dict, tuple((name, _form(each, owns, arrays)) for name, each in value.items())
    if value is None or isinstance(value, bool | int | float | str):
        # 1, 1.0 and True are equal and not the same argument.
        return type(value), value
    raise TypeError(
        "a compiled step takes and returns arrays of its backend, numbers, and tuples, lists and dicts of them; got "
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
