"""State of a layer that is saved but not trained, such as running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

from ...backends import Backend
from ...backends.backend import FLOATS
from ...backends.lookup import require_plain
from ...backends.recording.guards import require_owned
from ...common.types import Array, dtype_name
from .arrays import require_float
from .parameter import Owner, copied
from .placement import moved


@dataclass(frozen=True)
class _Constant:
    """An array not made yet: every entry is ``value``; floats in the owner's dtype, integers in int64."""

    shape: tuple[int, ...]
    value: float | int


class Buffers(MutableMapping[str, Array]):
    """Arrays by name, each made where its layer computes when it is first looked at.

    Parameters
    ----------
    owner : Layer
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._arrays: dict[str, Array | _Constant] = {}
        # Copies that `own` made, which compiled steps write into.
        self._own: dict[str, Array] = {}

    def declare(self, name: str, shape: tuple[int, ...], value: float | int) -> None:
        """Add an array that starts with ``value`` everywhere; an integer value makes integers."""
        self._arrays[name] = _Constant(shape, value)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without making it."""
        return tuple(self._arrays[name].shape)

    def holds_floats(self, name: str) -> bool:
        """Whether an array is of floats, without making it."""
        array = self._arrays[name]
        if isinstance(array, _Constant):
            return isinstance(array.value, float)
        return dtype_name(array.dtype) in FLOATS

    def move(self, backend: Backend) -> None:
        """Take all arrays that were made to another backend."""
        self._own.clear()
        for name, array in self._arrays.items():
            if not isinstance(array, _Constant):
                self._arrays[name] = moved(array, backend)

    def own(self, name: str) -> None:
        """Let an array be one that a compiled step may write into: a copy, for others may hold it."""
        array = self[name]
        if array is not self._own.get(name):
            self._arrays[name] = self._own[name] = copied(array, array, self._owner.backend)

    def held(self, copies: bool = False) -> dict[str, Array | _Constant]:
        """What there is now, for `put_back`; nothing is made for it."""
        b = self._owner.backend
        return {
            name: copied(array, array, b) if copies and not isinstance(array, _Constant) else array
            for name, array in self._arrays.items()
        }

    def put_back(self, held: Mapping[str, Array | _Constant]) -> None:
        """Make these the arrays again."""
        for name, array in held.items():
            if self._arrays.get(name) is not array:
                self[name] = array

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if isinstance(array, _Constant):
            b = self._owner.backend
            integer = getattr(b.xp, "int64", None) or b.xp.int32
            dtype = integer if isinstance(array.value, int) else b.dtype
            with b.context():
                array = b.xp.full(array.shape, array.value, dtype=dtype, device=b.device)
            self._arrays[name] = array
        return array

    def __setitem__(self, name: str, array: Array) -> None:
        if not isinstance(array, _Constant):
            require_plain(array, name)
            if name in self._arrays and self.holds_floats(name):
                require_float(array, name)
        require_owned(self, f"a buffer, {name}")
        self._arrays[name] = array

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Buffers({', '.join(f'{name}: {self.shape(name)}' for name in self)})"
