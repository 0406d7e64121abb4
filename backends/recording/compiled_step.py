"""A step recorded once and replayed: what `Backend.compile` returns on a device that can record.

A recording fixes the addresses of arrays and all that Python decides: numbers, branches, which array a name refers to.
A replay runs no Python code of the step. So a compiled step is given the *owners* of the state that the step changes
(models, optimizers), which list that state as *slots*, and keeps four rules:

- Arguments are copied into the recording's arrays before a replay, and results are copied out after it.
- If the step puts a new array into a slot, its entries are copied into the old array at the end of the recording, so
  that the next replay starts from them. An array that was put into a slot between two replays is copied in before the
  second one.
- A recording holds for one set of Python numbers (learning rate, training or evaluation); other values need another
  recording. The step runs uncompiled a few times for each set first, so a set that does not recur is never recorded.
- A number that the step changes can't be fixed. If the step only adds to it, as draws do to the position in a random
  stream, it is a *counter*: a recording reads it from the device and adds to it there, and after a replay the same is
  added to the Python number. For any other such number a `CaptureError` names it. Transfers between host and device
  raise one too.

On a GPU the last uncompiled run is a rehearsal: it does all that the recording will do, so that no kernel is compiled
or loaded for the first time during a recording.

All that depends on the device is in a `Recorder`.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import RLock
from typing import Any

from ...common.types import Array
from ..origins import copy_maker
from .arguments import description, form_of, is_array, with_arrays
from .guards import Counter, NumberChanged, NumberRead, guarded, in_recording
from .recorder import Recorder
from .recording import Number, Recording, Unread, moves, state
from .slots import ABSENT, Slot, StateOwner, restore
from .state_changes import advance, require_constant, unread_places, write_back

#: Uncompiled runs of a step before it is recorded: they compile kernels and make what is made on first use. The last of
#: them is the rehearsal, if there is one.
WARMUP = 2
#: The most recordings of one step, each with its memory; the one used longest ago is dropped first.
KEPT = 4
# Calls of one step without a repetition after which a warning says that nothing is replayed.
_PATIENCE = 32


class CompiledStep:
    """A step that is recorded and replayed; it returns the results of the step.

    Parameters
    ----------
    step : callable
        Accepts and returns arrays, numbers, and tuples, lists and dicts of them; it must not write to its arguments.
        In a replay its Python code does not run: no ``print``, no ``append`` to a list. It must return all results.
    owners : sequence of StateOwner
        All that the step changes: models, optimizers, and streams of random numbers that it draws from itself. An
        optimizer that counts steps counts them on the device from now on.
    recorder : Recorder

    Attributes
    ----------
    recorded, replayed : int
        The number of times so far.
    unrepeated : int
        Calls since the last one whose form had occurred before.
    warns : bool
        Whether to warn if no form is repeated for a long time.

    Raises
    ------
    CaptureError
        From a call, for a step that can't be recorded. The state is then that after uncompiled runs of the calls before
        it, and of this call too if the message is about a number that the step changed.
    """

    def __init__(self, step: Callable[..., Any], owners: Iterable[StateOwner], recorder: Recorder) -> None:
        self.step, self.owners, self.recorder = step, list(owners), recorder
        for owner in self.owners:
            if not callable(getattr(owner, "slots", None)):
                raise TypeError(f"compile: the arguments after the step must be models and optimizers, got {owner!r}")
        self.recorded = self.replayed = self.unrepeated = 0
        self.warns = True
        self._reads_numbers = recorder.reads_numbers
        # In the order of their last use. Not a dict: hashing all settings of a model takes long.
        self._recordings: list[Recording] = []
        self._runs: OrderedDict[Any, int] = OrderedDict()
        # One thread at a time: each call continues from the state after the one before.
        self._lock = RLock()
        if not recorder.reads_numbers:
            self._count_on_device()

    def _count_on_device(self) -> None:
        """Let optimizers count on the device: a recording would freeze what they count in Python numbers."""
        for owner in self.owners:
            if callable(prepare := getattr(owner, "count_on_device", None)):
                prepare()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """The step's results, in arrays that no later call overwrites."""
        if in_recording():
            # This is a part of a step that is recorded as a whole.
            return self.step(*args, **keywords)
        with self._lock, self.recorder.context():
            return self._call(args, keywords)

    def _call(self, args: Any, keywords: Any) -> Any:
        arrays: list[Array] = []
        form = form_of((args, keywords), self.recorder.owns, arrays), tuple(map(self.recorder.layout, arrays))
        for place in reversed(range(len(self._recordings))):
            recording = self._recordings[place]
            if recording.form == form and recording.fits():
                self._recordings.append(self._recordings.pop(place))
                if recording.begin(arrays):
                    return self._replay(recording)
                # Python decides otherwise by these values.
                return self.step(*args, **keywords)
        slots = self._slots()
        values = [self._value(slot) for slot in slots]
        for slot, value in zip(slots, values, strict=True):
            if is_array(value) and not self.recorder.owns(value):
                raise TypeError(
                    f"{slot.name} must be an array of the backend that this step was compiled for, got one of "
                    f"{type(value).__module__.partition('.')[0]}: move its model there with model.to(...), or compile "
                    "the step with the model's own backend"
                )
        key = (form, tuple(state(value, self.recorder) for value in values))
        if self._runs.get(key, 0) < WARMUP:
            return self._run(key, slots, args, keywords, arrays)
        try:
            recording = self._record(form, slots, args, keywords, arrays)
        except NumberRead:
            # From now on each learning rate has recordings of its own.
            self._reads_numbers = False
            self._count_on_device()
            return self._run(key, slots, args, keywords, arrays)
        self._recordings.append(recording)
        del self._recordings[:-KEPT]
        recording.look()
        recording.begin(arrays)
        return self._replay(recording)

    def _value(self, slot: Slot) -> Any:
        """What of a slot's value decides which recording serves it."""
        if slot.counter is not None:
            return "counter"
        value = slot.get()
        return ("number", type(value).__name__) if self._is_read(slot, value) else value

    def _is_read(self, slot: Slot, value: Any) -> bool:
        """Whether a recording reads a number from an array."""
        return bool(slot.varies) and self._reads_numbers and type(value) in (int, float)

    @property
    def launches(self) -> int | None:
        """Kernels, copies and fills in a replay of the recording that was used last; None if there is none yet."""
        return self._recordings[-1].replay.launches if self._recordings else None

    def _slots(self) -> list[Slot]:
        return list({slot.place: slot for owner in self.owners for slot in owner.slots()}.values())

    def _run(self, key: Any, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> Any:
        """Run the step uncompiled, which shows what numbers it changes."""
        if self._runs.get(key, 0) == WARMUP - 1 and self.recorder.rehearses:
            result = self._rehearse(slots, args, keywords, arrays)
        else:
            before = [slot.get() for slot in slots]
            result = self.step(*args, **keywords)
            self._require_constant(slots, before, result)
        self.unrepeated = 0 if key in self._runs else self.unrepeated + 1
        if self.unrepeated == _PATIENCE and self.warns:
            warnings.warn(
                f"{_PATIENCE} calls of a compiled step had different shapes or settings each (a learning rate that "
                "changes at every step is one): it runs as if not compiled",
                stacklevel=4,
            )
        self._runs[key] = self._runs.pop(key, 0) + 1
        while len(self._runs) > 2 * _PATIENCE:
            self._runs.popitem(last=False)
        return result

    def _require_constant(self, slots: list[Slot], before: list[Any], result: Any) -> None:
        """`require_constant` after an uncompiled run."""
        try:
            require_constant(slots, before, self.recorder, self._is_read)
        except NumberChanged as error:
            error.result = result
            raise

    def _prepared(
        self, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]
    ) -> tuple[list[Array], Any, Any, list[Counter]]:
        """The recording's own argument arrays, the arguments with these, and its counters; makes slots writable."""
        for slot in slots:
            if slot.own is not None:
                slot.own()
            value = slot.get()
            if self.recorder.owns(value) and self.recorder.repeats(value):
                slot.set(self.recorder.copy(value))
        own = [self.recorder.empty_like(array) for array in arrays]
        for target, array in zip(own, arrays, strict=True):
            self.recorder.write(target, array)
            copy_maker(array, target)
        args, keywords = with_arrays((args, keywords), self.recorder.owns, iter(own))
        counters = [
            Counter(slot, slot.counter(), self.recorder.number(slot.get()), slot.get())
            for slot in slots
            if slot.counter is not None
        ]
        return own, args, keywords, counters

    def _rehearse(self, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> Any:
        """Run the step uncompiled, as a recording does, but write back into copies."""
        _, args, keywords, counters = self._prepared(slots, args, keywords, arrays)
        before = [slot.get() for slot in slots]
        with guarded(slots, counters, records=False):
            result = self.step(*args, **keywords)
        self._require_constant(slots, before, result)
        owns = self.recorder.owns
        pairs = [(old, slot.get()) for slot, old in zip(slots, before, strict=True)]
        for old, new in moves(pairs, before, self.recorder):
            if description(old, owns) == description(new, owns):
                self.recorder.write(self.recorder.empty_like(old), new)
        advance(counters, self.recorder)
        return result

    def _record(self, form: Any, slots: list[Slot], args: Any, keywords: Any, arrays: list[Array]) -> Recording:
        """Record the step on the recording's own arguments, then the copies of new arrays into the slots' old ones."""
        own, args, keywords, counters = self._prepared(slots, args, keywords, arrays)
        owns, before = self.recorder.owns, [slot.get() for slot in slots]
        numbers = {
            place: self.recorder.number(value)
            for place, (slot, value) in enumerate(zip(slots, before, strict=True))
            if self._is_read(slot, value)
        }

        unread: set[int] = set()

        def work(given: list[Array], read: list[Array]) -> tuple[Any, list[Any]]:
            """The step on these arrays in place of arguments, counters and state."""
            traced, number = iter(given), dict(zip(numbers, read, strict=True))
            step_args, step_keywords = with_arrays((args, keywords), owns, traced)
            inside = [replace(counter, array=next(traced)) for counter in counters]
            start = [next(traced) if owns(value) else number.get(place, value) for place, value in enumerate(before)]
            try:
                restore(slots, start)
                with guarded(slots, inside):
                    result = self.step(*step_args, **step_keywords)
                    form_of(result, owns, [])
                    require_constant(slots, start, self.recorder, self._is_read)
                    unread.clear()
                    unread.update(unread_places(slots, start, self.recorder))
                    after = write_back(slots, start, self.recorder, unread)
                    advance(inside, self.recorder)
            finally:
                # Recording has changed nothing yet.
                restore(slots, before)
                for counter in counters:
                    counter.slot.set(counter.value)
            for counter, advanced in zip(counters, inside, strict=True):
                counter.step = advanced.step
            return result, after

        state_arrays = [value for value in before if owns(value)]
        given = [*own, *(counter.array for counter in counters), *state_arrays]
        (result, after), replay = self.recorder.record(work, given, list(numbers.values()))
        self.recorded += 1
        for place, (slot, value) in enumerate(zip(slots, after, strict=True)):
            if place not in numbers and slot.counter is None and value is not ABSENT:
                slot.put(value)
        read = [
            Number(slots[place], array, type(before[place]), slots[place].varies == "within")
            for place, array in numbers.items()
        ]
        fixed = [(slot, value) for slot, value in zip(slots, before, strict=True) if slot.fixed]
        before = [
            Unread(state(value, self.recorder)) if place in unread else value for place, value in enumerate(before)
        ]
        slots, before, after = (
            [each for place, each in enumerate(of_slots) if not slots[place].fixed and place not in numbers]
            for of_slots in (slots, before, after)
        )
        return Recording(self.recorder, form, fixed, own, slots, before, after, counters, read, replay, result)

    def _replay(self, recording: Recording) -> Any:
        result = recording.run()
        self.replayed += 1
        return result

    def __repr__(self) -> str:
        return f"CompiledStep({self.step!r}, recorded={self.recorded}, replayed={self.replayed})"
