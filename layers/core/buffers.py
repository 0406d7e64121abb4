"""Arrays of a layer that are saved but not trained, such as running statistics."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...backends import Backend
from ...backends.backend import FLOATS
from ...backends.lookup import require_plain
from ...backends.recording.guards import require_owned
from ...backends.sole_reference import ONE_REFERENCE
from ...common.types import Array, dtype_name
from .array_checks import require_float
from .in_place import copy_with_layout
from .parameter import Owner
from .placement import moved


@dataclass(frozen=True)
class _Constant:
    """A buffer before its first use: ``value`` in every entry, in the owner's dtype if a float, int64 if an integer."""

    shape: tuple[int, ...]
    value: float | int


class BufferSource:
    """A buffer as a source of kept values; see `xpnn.layers.core.kept`."""

    __slots__ = ("_buffers", "_name", "seen")

    def __init__(self, buffers: Buffers, name: str) -> None:
        self._buffers, self._name = buffers, name
        self.seen = object()

    def is_held_elsewhere(self) -> bool:
        """Whether something else refers to the array of the buffer."""
        return self._buffers.is_held_elsewhere(self._name)

    def is_sole_access(self) -> bool:
        """Whether there is no other way to the memory of the buffer."""
        return self._buffers.is_sole_access(self._name)


class Buffers(MutableMapping[str, Array]):
    """Arrays by name, each created on the backend of its layer on first use.

    Parameters
    ----------
    owner : Layer
    """

    #: A count that grows whenever any layer gets or loses a buffer.
    declared: ClassVar[int] = 0

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._arrays: dict[str, Array | _Constant] = {}
        # Copies made by `own`, which only this object refers to, so that compiled steps may write into them.
        self._own: dict[str, Array] = {}
        self._sources: dict[str, BufferSource] = {}

    def declare(self, name: str, shape: tuple[int, ...], value: float | int) -> None:
        """Add a buffer with ``value`` in every entry; an integer value makes an array of integers."""
        self._arrays[name] = _Constant(shape, value)
        Buffers.declared += 1

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a buffer, without creating it."""
        return tuple(self._arrays[name].shape)

    def holds_floats(self, name: str) -> bool:
        """Whether a buffer is of floats, without creating it."""
        array = self._arrays[name]
        if isinstance(array, _Constant):
            return isinstance(array.value, float)
        return dtype_name(array.dtype) in FLOATS

    def move(self, backend: Backend) -> None:
        """Move all arrays that exist to another backend."""
        self._own.clear()
        for name, array in self._arrays.items():
            if not isinstance(array, _Constant):
                self._arrays[name] = moved(array, backend)
            self._accessed(name)

    def own(self, name: str) -> None:
        """Replace a buffer by a copy that a compiled step may write into; the array itself may be in use elsewhere."""
        array = self[name]
        if array is not self._own.get(name):
            self._arrays[name] = self._own[name] = copy_with_layout(array, array, self._owner.backend)
            self._accessed(name)

    def adopt(self, name: str) -> None:
        """Treat a buffer as a copy made by `own`."""
        self._own[name] = self._arrays[name]

    def arrays(self, copies: bool = False) -> dict[str, Array | _Constant]:
        """The present arrays, or copies of them, for `restore`; no buffer is created."""
        b = self._owner.backend
        for name in self._arrays:
            self._accessed(name)
        return {
            name: copy_with_layout(array, array, b) if copies and not isinstance(array, _Constant) else array
            for name, array in self._arrays.items()
        }

    def restore(self, arrays: Mapping[str, Array | _Constant]) -> None:
        """Set all buffers to the arrays that `arrays` returned."""
        for name, array in arrays.items():
            if self._arrays.get(name) is not array:
                self[name] = array

    def source(self, name: str) -> BufferSource:
        """A buffer as something that kept values depend on."""
        found = self._sources.get(name)
        if found is None:
            found = self._sources.setdefault(name, BufferSource(self, name))
        return found

    def _accessed(self, name: str) -> None:
        """Record that code outside of layers may change a buffer, after the reference to the array was made."""
        if name in self._sources:
            self._sources[name].seen = object()

    def __getitem__(self, name: str) -> Array:
        array = self.read(name)
        self._accessed(name)
        return array

    def read(self, name: str) -> Array:
        """A buffer, for its layer to compute with: it must not be changed, and not be returned to the user."""
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
        Buffers.declared += name not in self._arrays
        self._arrays[name] = array
        self._accessed(name)

    def is_held_elsewhere(self, name: str) -> bool:
        """Whether something else refers to the array of a buffer."""
        array = self._arrays[name]
        if isinstance(array, _Constant):
            array = self.read(name)
        if not hasattr(array, "__setitem__"):
            # A number of NumPy, which functions make of arrays without axes: it never changes, whoever holds it.
            return False
        own = array is self._own.get(name)
        del array
        return sys.getrefcount(self._arrays[name]) != ONE_REFERENCE + own

    def is_sole_access(self, name: str) -> bool:
        """Whether there is no other way to the memory of a buffer."""
        return self._owner.backend.is_sole_array(self._arrays[name])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sources": {}}

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]
        Buffers.declared += 1
        self._accessed(name)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Buffers({', '.join(f'{name}: {self.shape(name)}' for name in self)})"
