"""What a step did to the slots in a run, and what a recording adds so that the next replay starts from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from .arguments import description
from .guards import CaptureError, Counter, NumberChanged
from .recorder import Recorder
from .recording import moves, state
from .slots import Slot


def require_constant(
    slots: list[Slot], before: list[Any], recorder: Recorder, is_read: Callable[[Slot, Any], bool]
) -> None:
    """Raise `NumberChanged` if the step changed a number of Python that a recording would freeze.

    ``is_read`` says whether a slot with that value is a number that a recording reads from an array.
    """
    owns = recorder.owns
    for slot, old in zip(slots, before, strict=True):
        new = slot.get()
        if slot.counter is not None or owns(new) or (owns(old) and not slot.varies):
            continue
        if slot.varies == "within" and is_read(slot, new) and is_read(slot, old):
            continue
        if description(new, owns) != description(old, owns):
            raise NumberChanged(
                f"the step changes a number of Python, {slot.name} from {old!r} to {new!r}, which a recording would "
                "freeze. Optimizers that count steps need capturable=True; a schedule's step() belongs after the "
                "compiled step"
            )


def unread_places(slots: list[Slot], before: list[Any], recorder: Recorder) -> list[int]:
    """Places of slots whose arrays the step replaced and did not read: a replay leaves the new ones there.

    So it is with gradients that the step drops first. The new array must be an array of its own, in no other slot, of
    the old one's layout.
    """
    owns, values = recorder.owns, [slot.get() for slot in slots]
    held = [id(value) for value in values]
    return [
        place
        for place, (old, new) in enumerate(zip(before, values, strict=True))
        if owns(old)
        and owns(new)
        and new is not old
        and not recorder.reads(old)
        and not recorder.is_view(new)
        and held.count(id(new)) == 1
        and state(old, recorder) == state(new, recorder)
    ]


def write_back(slots: list[Slot], before: list[Any], recorder: Recorder, unread: Collection[int] = ()) -> list[Any]:
    """Copy new arrays of slots into the old ones, put these back, and return the slots' values.

    The new arrays of ``unread`` slots stay.
    """
    owns, after, pairs = recorder.owns, [], []
    for place, (slot, old) in enumerate(zip(slots, before, strict=True)):
        new = slot.get()
        if place not in unread and owns(old) and owns(new) and new is not old:
            if description(old, owns) != description(new, owns):
                raise CaptureError(f"the step changes the shape or dtype of {slot.name}, which a recording can't")
            pairs.append((old, new))
            slot.set(old)
            new = old
        after.append(new)
    for old, new in moves(pairs, before, recorder):
        recorder.write(old, new)
    return after


def advance(counters: list[Counter], recorder: Recorder) -> None:
    """Add to the counters on the device what the step added to their Python numbers."""
    for counter in counters:
        counter.step = counter.slot.get() - counter.value
        if counter.step:
            recorder.write(counter.array, counter.array + counter.step)
