"""What layers save for backward, in 16 bits: see `xpnn.backends.narrow`.

A layer saves arrays as it would in float32 and finds them in float32, rounded. Statistics of norms stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from typing import Any, SupportsIndex

from ...backends.narrow import NarrowFormat, Stored
from ...common.types import dtype_name

# The fields with an array of the input's size in what norms save; the others are statistics.
FIELDS = ("values", "rows", "state")


class NarrowSaved(tuple[Any, ...]):
    """Saved values, of which float32 arrays are stored in 16 bits and widened when they are read."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return (_loaded(value) for value in super().__iter__())

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return tuple(map(_loaded, found)) if isinstance(index, slice) else _loaded(found)

    def stored(self) -> tuple[Any, ...]:
        """The values as they are stored, arrays as `Stored`."""
        return tuple(super().__iter__())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stored(),)


def narrowed(values: tuple[Any, ...], narrow: NarrowFormat, is_output: bool = False) -> NarrowSaved:
    """The values with float32 arrays stored in 16 bits; ``is_output``: they are the layer's output."""
    return NarrowSaved([_stored(value, narrow, is_output) for value in values])


def _stored(value: Any, narrow: NarrowFormat, is_output: bool = False) -> Any:
    if hasattr(value, "dtype"):
        if dtype_name(value.dtype) != "float32":
            return value
        return narrow.known(value) or (narrow.store_output if is_output else narrow.store)(value)
    if getattr(value, "step", None) not in (None, value.rows.shape[-1] if hasattr(value, "rows") else None):
        # A kernel gets the address of these rows and skips the gaps between them, which a copy would not have.
        return value
    return _with_fields(value, lambda field: _stored(field, narrow))


def _loaded(value: Any) -> Any:
    return value.load() if isinstance(value, Stored) else _with_fields(value, _loaded)


def _with_fields(value: Any, change: Any) -> Any:
    """A record with its `FIELDS` changed; any other value unchanged."""
    is_record = is_dataclass(value) and not isinstance(value, type)
    names = [name for name in FIELDS if hasattr(value, name)] if is_record or hasattr(value, "_fields") else []
    if not names:
        return value
    fields = {name: change(getattr(value, name)) for name in names}
    return replace(value, **fields) if is_record else value._replace(**fields)
