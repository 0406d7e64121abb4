"""What a layer computes from its parameters and buffers alone, kept in evaluation from call to call.

A convolution rearranges its weight before it multiplies, batch norm computes a scale and a shift: in evaluation these
are the same in every call. A layer computes them through a `Keep`, which computes each of them once and returns it
again until an array that it depends on may have changed. A stale value would be a wrong result without an error, so
nothing is kept unless both hold for each of the arrays, a *source*:

- No code outside of layers has got or set it since. Whatever does so (``parameter.value``, ``layer.buffers[name]``,
  optimizers, `load_state_dict`, `Layer.to`, the replay of a compiled step) replaces the object ``seen`` of the source.
- Nobody else can write into it: its reference count shows that only the source refers to the array, and the array is
  the only object that gives access to its memory (`ArrayLibrary.is_sole_array`). While a user holds the array, a view
  of it or what `Layer.state_dict` returned, values are computed in each call, as in training.

Code that writes to an address, a raw pointer of a time before, goes unnoticed; so does a layer that writes into what
`LayerState.parameter_value` returned.

Threads may evaluate one layer at the same time: what is kept is replaced as a whole, and never changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from ...backends.recording.calls import suspended
from ...common.types import Array

T = TypeVar("T")

#: The most values of a set of sources; the one added first is dropped. Different shapes of input may need other values.
MOST_VALUES = 8


class Source(Protocol):
    """An array on which a kept value depends: a parameter, or a buffer."""

    seen: object

    def is_held_elsewhere(self) -> bool:
        """Whether something else refers to the array; cheap."""

    def is_sole_access(self) -> bool:
        """Whether there is no other way to the array's memory than this reference; called before a value is kept."""


class Keep(Protocol):
    """``keep(key, make)``: the value that ``make()`` returns, computed now or earlier.

    The key names the value and holds all that it depends on beside the arrays, such as settings. The value may be any
    object: an array, or what an engine packs. It must not refer to the arrays themselves, as a view does: it is then
    not kept, and neither are the others of the same sources.
    """

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for this key."""


def compute(key: Hashable, make: Callable[[], T]) -> T:
    """A `Keep` that keeps nothing."""
    return make()


class _Constants(threading.local):
    made: dict[Hashable, Any] | None = None


_constants = _Constants()


@contextmanager
def as_constants() -> Iterator[None]:
    """Within the ``with`` block, layers of this thread compute with copies of their parameters and buffers.

    Nobody else can write into these, so that a recording of an evaluation may hold them. What layers keep is computed
    from them once and not recorded.
    """
    before, _constants.made = _constants.made, {}
    try:
        yield
    finally:
        _constants.made = before


def constant(array: Array) -> Array:
    """A parameter's or buffer's array to compute with: itself, or its copy within `as_constants`."""
    made = _constants.made
    if made is None:
        return array
    if id(array) not in made:
        # With the array, so that no other gets its id.
        made[id(array)] = array, array.copy(order="K")
    copy: Array = made[id(array)][1]
    return copy


def keep_constants(owner: Hashable) -> Keep | None:
    """What keeps values of an owner within `as_constants`; None outside."""
    made = _constants.made
    if made is None:
        return None

    def keep(key: Hashable, make: Callable[[], T]) -> T:
        if (owner, key) not in made:
            with suspended():
                made[owner, key] = make()
        value: T = made[owner, key]
        return value

    return keep


class _Values:
    """What is kept while the sources are as they are now; ``seen`` has an object of each, which no other source has."""

    __slots__ = ("_found", "_synchronize", "seen")

    def __init__(self, seen: list[object], synchronize: Callable[[], None]) -> None:
        self.seen, self._synchronize = seen, synchronize
        self._found: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        found = self._found
        if key in found:
            try:
                value: T = found[key]
                return value
            except KeyError:
                # Another thread dropped it just now.
                pass
        value = make()
        # Another thread may read it on another stream of the device.
        self._synchronize()
        if len(found) >= MOST_VALUES:
            # Of a copy, because another thread may add one.
            found.pop(next(iter(dict(found))), None)
        found[key] = value
        return value


class Kept:
    """What a layer keeps, by sets of sources. Copies and pickles of it are empty.

    ``parts`` is for `xpnn.layers.containers.recorded_evaluation`.
    """

    __slots__ = ("_values", "parts")

    def __init__(self) -> None:
        self._values: dict[Hashable, _Values] = {}
        self.parts: Any = None

    def of(self, name: Hashable, sources: Iterable[Source], synchronize: Callable[[], None]) -> Keep:
        """What keeps values that depend on these sources only, for one forward; ``name`` stands for the set.

        ``synchronize`` waits until the device has computed what was queued.
        """
        sources = tuple(sources)
        # Read before the reference counts: an access between both leaves another object than the one compared next.
        seen = [source.seen for source in sources]
        values = self._values.get(name)
        for source in sources:
            if source.is_held_elsewhere():
                self._values.pop(name, None)
                return compute
        if values is not None and values.seen == seen:
            return values
        if not all(source.is_sole_access() for source in sources):
            self._values.pop(name, None)
            return compute
        values = self._values[name] = _Values(seen, synchronize)
        return values

    def clear(self) -> None:
        """Free everything."""
        if self._values:
            self._values = {}
        self.parts = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
