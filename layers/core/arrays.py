"""Small steps that several layers take: memory order, padding, scalars, checks.

Inside a layer with windows the channels are the last axis. A layer permutes its input to that order (a view;
free in memory when the layer before wrote it so), computes, and returns a permuted view of what it wrote:
the public shape is ``(N, C, *spatial)`` throughout and nothing is converted between layers.
"""

from collections.abc import Callable, Collection
from math import inf, prod
from typing import Any

from array_api_compat import array_namespace, device

from ...backends import operations_of
from ...backends.backend import FLOATS
from ...backends.inputs import conversion, describe
from ...backends.lookup import require_standard
from ...common import checks
from ...common.checks import shown
from ...common.types import Array, Namespace, dtype_name
from .geometry import Geometry


def namespace(xp: Namespace | None, /, optional: Collection[str] = (), **arrays: Array | None) -> Namespace:
    """``xp`` if given, else what their backend computes with for the namespace that the arrays share.

    Raises
    ------
    TypeError
        Unless all are plain arrays, of one library; those that are ``optional`` may be None.
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


def channels_last(x: Array, xp: Namespace) -> Array:
    """View ``(N, C, *spatial)`` as ``(N, *spatial, C)``."""
    return xp.permute_dims(x, (0, *range(2, x.ndim), 1))


def channels_first(x: Array, xp: Namespace) -> Array:
    """View ``(N, *spatial, C)`` as ``(N, C, *spatial)``."""
    return xp.permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def memory_axes(x: Array, xp: Namespace) -> tuple[int, ...]:
    """The axes of ``x`` in the order of its memory, as far as that is known and there are no gaps.

    Permuted so, an array is read in the order in which it lies, and what a library computes from it lies so too: some
    allocate results in the order of the axes that they see, whatever the strides are.
    """
    return operations_of(xp).memory_order(x) or tuple(range(x.ndim))


def pad(x: Array, geometry: Geometry, value: float, xp: Namespace) -> Array:
    """``x (N, *spatial, C)`` within its padding (and the overhang of ``ceil_mode``), filled with ``value``."""
    if not geometry.is_padded:
        return x
    shape, inside = [x.shape[0]], [slice(None)]
    for n, (before, after), over in zip(x.shape[1:-1], geometry.padding, geometry.overhang, strict=True):
        shape.append(before + n + after + over)
        inside.append(slice(before, before + n))
    padded = xp.full((*shape, x.shape[-1]), value, dtype=x.dtype, device=device(x))
    padded[(*inside, slice(None))] = x
    return padded


def padded_shape(x_shape: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    """Shape that `pad` gives for a channels-last shape."""
    spatial = (
        before + n + after + over
        for n, (before, after), over in zip(x_shape[1:-1], geometry.padding, geometry.overhang, strict=True)
    )
    return (x_shape[0], *spatial, x_shape[-1])


def unpad(padded: Array, geometry: Geometry, spatial: tuple[int, ...]) -> Array:
    """The part of a padded array that `pad` was given: its adjoint."""
    if not geometry.is_padded:
        return padded
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(spatial, geometry.padding, strict=True))
    return padded[(slice(None), *inside, slice(None))]


def by_samples(function: Callable[..., Array], x: Array, *others: Array, xp: Namespace) -> Array:
    """``function(x, *others)`` of arrays ``(N, ...)``, which gives an array like ``x`` and treats samples alone.

    Some samples at a time and on several workers, where the backend has them and the arrays are large.
    """
    ops = operations_of(xp)
    blocks = ops.blocks(x.shape[0], 1, 4 * prod(x.shape[1:]), x)
    if len(blocks) == 1:
        return function(x, *others)
    y = xp.empty(x.shape, dtype=x.dtype, device=device(x))

    def work(i: int) -> None:
        samples = blocks[i].samples
        y[samples, ...] = function(x[samples, ...], *(other[samples, ...] for other in others))

    ops.parallel(len(blocks), work)
    return y


def over_blocks(work: Callable[[slice], None], x: Array, xp: Namespace) -> None:
    """``work`` on all samples of ``x (N, ...)``, some at a time and on several workers where the backend has them."""
    ops = operations_of(xp)
    blocks = ops.blocks(x.shape[0], 1, 4 * prod(x.shape[1:]), x)
    if len(blocks) == 1:
        work(blocks[0].samples)
    else:
        ops.parallel(len(blocks), lambda i: work(blocks[i].samples))


def scalar(value: float, like: Array, xp: Namespace) -> Array:
    """A 0-d array of ``like``'s dtype, made on its device.

    To divide by: an array divided by a Python number is multiplied by a rounded reciprocal on some devices.
    """
    return xp.full((), value, dtype=like.dtype, device=device(like))


def clamp(x: Array, low: Any, high: Any, xp: Namespace) -> Array:
    """``x`` brought into ``[low, high]``; NaN stays. The standard's `clip` waits for the device on CuPy."""
    return operations_of(xp).clamp(x, low, high)


def at_least(x: Array, low: float, xp: Namespace) -> Array:
    """``x``, or ``low`` where it is below that; NaN stays."""
    return operations_of(xp).clamp(x, low)


def sign(x: Array, xp: Namespace) -> Array:
    """-1, 0 or 1; NaN of NaN, which some libraries make 0. The standard's `sign` waits for the device on CuPy."""
    found = xp.astype(x > 0.0, x.dtype) - xp.astype(x < 0.0, x.dtype)
    return xp.where(xp.isnan(x), x, found)


def keep_nan(value: Array, x: Array, xp: Namespace) -> Array:
    """``value``, and NaN where ``x`` is NaN."""
    return xp.where(x == x, value, x)


def times(x: Array, factor: Array, xp: Namespace) -> Array:
    """``x * factor``, and 0 where the factor is 0 and ``x`` infinite; NaN stays."""
    return factor * xp.where(xp.logical_and(factor == 0.0, xp.abs(x) == inf), zero(x, xp), x)


def zero(like: Array, xp: Namespace) -> Array:
    """A 0-d zero of ``like``'s dtype on its device."""
    return xp.zeros((), dtype=like.dtype, device=device(like))


def require_float(x: Any, what: str = "input") -> None:
    """Raise `TypeError` unless ``x`` is a float32 or float64 array."""
    if not hasattr(x, "dtype") or dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{what} must be a float32 or float64 array, got {describe(x)}; {conversion(x)}")


def require_same_dtype(**arrays: Array | None) -> None:
    """Raise `TypeError` unless all arrays given have one floating dtype; the keywords name them."""
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


def require_shape(x: Array, shape: tuple[int, ...], what: str) -> None:
    """Raise `ValueError` unless ``x`` has that shape, `TypeError` for what has none."""
    if not hasattr(x, "shape"):
        raise TypeError(f"{what} must be an array of shape {shape}, got {checks.shown(x)}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{what} has shape {tuple(x.shape)}, expected {shape}")
