"""From an array to its backend, and from a namespace to its operations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from ..common.types import Array, Namespace
from .backend import Backend
from .inputs import describe, host_data, is_plain_numpy, is_standard, unsupported
from .operations import Operations
from .origins import find_memory_by
from .registry import backend_class, get_backend, library_name, name_of, names

_ONLY_NUMPY = {np.ndarray}
# By classes of arrays.
_classes: dict[type, type[Backend]] = {}
_operations: dict[Namespace, Operations] = {}


def class_of(array: Any) -> type[Backend] | None:
    """The class of the backend that computes with an array; None for subclasses and for anything else."""
    kind = type(array)
    owner = _classes.get(kind)
    if owner is None:
        if is_plain_numpy(kind):
            owner = backend_class("numpy")
        elif is_array_api_obj(array) and not isinstance(array, np.ndarray):
            name = library_name(kind.__module__)
            owner = backend_class(name) if name in names() else None
        if owner is None or not owner.is_plain(kind):
            return None
        _classes[kind] = owner
    return owner if owner.is_dense(array) else None


def backend_of(array: Array, like: Backend | None = None) -> Backend:
    """The backend whose array it is, with the settings of ``like``."""
    kind = class_of(array)
    if kind is None:
        raise TypeError(unsupported(array, "the argument"))
    spec = kind.spec_of(array)
    if like is not None:
        return get_backend(spec, *like.settings)
    return get_backend(spec)


def to_host(array: Any, what: str = "an array") -> np.ndarray[Any, Any]:
    """An array of any backend, or nested numbers, as a NumPy array: a transfer that the caller requests."""
    if not isinstance(array, np.ndarray | np.generic) and class_of(array) is not None:
        return backend_of(array).to_numpy(array)
    return host_data(array, what, convert=True)


def has_backend(array: Any) -> bool:
    """Whether an object is an array of a backend."""
    return class_of(array) is not None


def require_plain(array: Any, what: str) -> None:
    """Raise `TypeError` unless it is an array of a backend."""
    if class_of(array) is None:
        raise TypeError(unsupported(array, what))


def require_standard(arrays: Mapping[str, Any]) -> None:
    """Raise `TypeError` unless all are arrays of one library: of a backend, or another that conforms to the standard.

    The keys are the names of the arrays in a message.
    """
    # The usual case, fast because every function of a training step calls this.
    if set(map(type, arrays.values())) == _ONLY_NUMPY:
        return
    owners: set[Any] = {class_of(array) for array in arrays.values()}
    if None in owners:
        for name, array in arrays.items():
            if class_of(array) is None and not is_standard(array):
                raise TypeError(unsupported(array, name))
        owners = {class_of(array) or array.__array_namespace__() for array in arrays.values()}
    if len(owners) > 1:
        given = ", ".join(f"{name} {describe(array)}" for name, array in arrays.items())
        raise TypeError(f"arrays must be of one library, got {given}; move them with backend.asarray(...)")


def operations_of(xp: Namespace) -> Operations:
    """The `Operations` of an array namespace: those of its backend, else those in functions of the standard."""
    try:
        # Layers call this for each operation.
        return _operations[xp]
    except KeyError:
        pass
    found = _operations[xp] = _make_operations(xp)
    return found


def _make_operations(xp: Namespace) -> Operations:
    raw = getattr(xp, "raw", None)
    if raw is not None:
        from .exact.operations import ExactOperations

        return ExactOperations(xp, operations_of(raw))
    name = name_of(xp) if hasattr(xp, "__name__") else ""
    kind = backend_class(name) if name and name in names() else None
    own = xp if kind is None else kind.namespace(xp)
    if own is not xp:
        return operations_of(own)
    return Operations(xp) if kind is None else kind.operations(xp)


def _memory_of(array: Any) -> Any:
    """An object that is the same for arrays that share memory; ``array`` itself if it is of no backend."""
    owner = class_of(array)
    return array if owner is None else owner.memory_of(array)


find_memory_by(_memory_of)
