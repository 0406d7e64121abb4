"""Checks of the arrays that a function or layer was given: library, dtype, shape."""

from collections.abc import Collection
from typing import Any

from array_api_compat import array_namespace

from ...backends import operations_of
from ...backends.backend import FLOATS
from ...backends.inputs import are_numpy_floats, conversion, describe
from ...backends.lookup import require_standard
from ...common.checks import shown
from ...common.types import Array, Namespace, dtype_name


def namespace(xp: Namespace | None, /, optional: Collection[str] = (), **arrays: Array | None) -> Namespace:
    """``xp`` if given, else the namespace with which the arrays' backend computes.

    The keywords name the arrays in messages; those in ``optional`` may be None.

    Raises
    ------
    TypeError
        Unless all are plain arrays of one library.
    """
    for name in optional:
        if name in arrays and arrays[name] is None:
            del arrays[name]
    require_standard(arrays)
    if xp is None:
        return operations_of(array_namespace(*arrays.values())).xp
    if not hasattr(xp, "asarray"):
        raise TypeError(f"xp must be an array namespace, got {shown(xp)}")
    return xp


def require_float(x: Any, what: str = "input") -> None:
    """Raise `TypeError` unless ``x`` is a float32 or float64 array."""
    if x is not None and are_numpy_floats([x]):
        # The usual case first, because every function calls this.
        return
    if not hasattr(x, "dtype") or dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{what} must be a float32 or float64 array, got {describe(x)}; {conversion(x)}")


def require_same_dtype(**arrays: Array | None) -> None:
    """Raise `TypeError` unless all arrays that are not None have one floating dtype; the keywords name them."""
    if are_numpy_floats(arrays.values()):
        return
    first = None
    for name, a in arrays.items():
        if a is None:
            continue
        require_float(a, name)
        dtype = dtype_name(a.dtype)
        first = first or dtype
        if dtype != first:
            mixed = ", ".join(f"{name} {dtype_name(a.dtype)}" for name, a in arrays.items() if a is not None)
            raise TypeError(f"mixed dtypes ({mixed}); convert one of them")


def require_dtype_of(x: Array, weight: Array, bias: Array | None) -> None:
    """`require_same_dtype` for an input that was checked, and parameters, which may have been set to any dtype."""
    dtype = x.dtype
    if weight.dtype != dtype or (bias is not None and bias.dtype != dtype):
        require_same_dtype(input=x, weight=weight, bias=bias)


def require_shape(x: Array, shape: tuple[int, ...], what: str) -> None:
    """Raise `ValueError` unless ``x`` has this shape, `TypeError` if it has no shape."""
    if not hasattr(x, "shape"):
        raise TypeError(f"{what} must be an array of shape {shape}, got {shown(x)}")
    if x.shape != shape and tuple(x.shape) != shape:
        raise ValueError(f"{what} has shape {tuple(x.shape)}, expected {shape}")


def spatial_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``spatial`` of a shape ``(N, C, *spatial)``; raises `ValueError` unless it has at least one axis."""
    if len(shape) < 3:
        raise ValueError(f"input must have shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    return shape[2:]
