"""The state that a step changes, as slots: what a model, an optimizer or a random stream holds between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol


class _Absent:
    def __repr__(self) -> str:
        return "absent"


#: The value of a slot that holds nothing yet.
ABSENT = _Absent()


@dataclass(frozen=True)
class Slot:
    """An array or a Python number of some object, by its name.

    Attributes
    ----------
    name : str
        What a message calls it.
    place : tuple of int and str
        The id of the object and the name within it; it identifies the slot.
    get, set : callable
    counter : callable, optional
        For an integer to which a step only adds: returns the object that passes itself to `guards.counted`.
    own : callable, optional
        Called before a recording, which writes into the array. It replaces an array that other code may hold, and
        expects not to change, by a copy.
    fixed : bool
        Whether no step changes it, because it decides how the step computes.
    adopt : callable, optional
        Called after an array was set that the object may change in place.
    varies : {"", "between", "within"}
        For a number that is only computed with: whether it changes between steps, as a learning rate, or within a
        step, as a count of steps. A recorder may read it from an array at every replay.
    """

    name: str
    place: tuple[int, str]
    get: Callable[[], Any]
    set: Callable[[Any], None]
    counter: Callable[[], Any] | None = None
    own: Callable[[], None] | None = None
    fixed: bool = False
    adopt: Callable[[], None] | None = None
    varies: str = ""

    def put(self, value: Any) -> None:
        """Set the value, an array of which the object may write into."""
        self.set(value)
        if self.adopt is not None:
            self.adopt()

    @classmethod
    def attribute(
        cls,
        name: str,
        holder: Any,
        key: str,
        own: Callable[[], None] | None = None,
        adopt: Callable[[], None] | None = None,
        varies: str = "",
    ) -> Slot:
        """The slot of an attribute."""
        place = id(holder), key
        get, put = partial(getattr, holder, key), partial(setattr, holder, key)
        return cls(name, place, get, put, own=own, adopt=adopt, varies=varies)

    @classmethod
    def item(
        cls,
        name: str,
        holder: Any,
        key: str,
        own: Callable[[], None] | None = None,
        adopt: Callable[[], None] | None = None,
        varies: str = "",
    ) -> Slot:
        """The slot of an entry of a mapping."""
        place = id(holder), key
        get, put = partial(holder.__getitem__, key), partial(holder.__setitem__, key)
        return cls(name, place, get, put, own=own, adopt=adopt, varies=varies)

    @classmethod
    def constant(cls, name: str, holder: Any, key: str, get: Callable[[], Any]) -> Slot:
        """The slot of something that decides how a step computes and that no step changes."""
        return cls(name, (id(holder), key), get, lambda value: None, fixed=True)


class StateOwner(Protocol):
    """An object with state that a step changes: a layer, an optimizer or a random stream."""

    def slots(self) -> Iterator[Slot]:
        """All its state."""


def restore(slots: list[Slot], values: list[Any]) -> None:
    """Set slots to values that they had before."""
    for slot, value in zip(slots, values, strict=True):
        if value is not ABSENT:
            slot.put(value)
