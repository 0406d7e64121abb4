"""Adaptive average pooling; the bins are those of `adaptive_bins`. Loops run over bins, never over cells."""

from typing import Any

from array_api_compat import device

from ...backends.execution.blocks import concat_all
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.elementwise import scalar
from .adaptive_bins import OutputSize, bins, output_sizes, prepared_kernel


@without_graph
def adaptive_avg_pool(x: Array, output_size: OutputSize, *, xp: Namespace | None = None) -> Array:
    """Averages over the bins of ``x (N, C, *S)``: ``(N, C, *output_size)``.

    ``output_size`` is an integer or one for each spatial axis; None keeps that axis. A bin is a box, so its average is
    computed along one axis after the other.
    """
    xp = namespace(xp, input=x)
    sizes = output_sizes(tuple(x.shape), output_size)
    require_float(x)
    if sizes == tuple(x.shape[2:]):
        return xp.asarray(x, copy=True)
    prepared = prepared_kernel(tuple(x.shape), sizes, x, xp)
    if prepared is not None:
        return channels_first(prepared.averages(channels_last(x, xp)), xp)
    for axis, m in enumerate(sizes, start=2):
        if m == x.shape[axis]:
            continue
        parts = [_mean(x[_at(axis, cells)], axis, xp) for cells in bins(x.shape[axis], m)]
        x = concat_all(parts, axis, xp)
    return x


@without_graph
def adaptive_avg_pool_backward(
    dy: Array, x_shape: tuple[int, ...], output_size: OutputSize, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `adaptive_avg_pool`: for each cell the sum of ``dy / (cells of the bin)`` over its bins."""
    xp, x_shape = namespace(xp, dy=dy), checks.shape("x_shape", x_shape)
    sizes = output_sizes(x_shape, output_size)
    require_float(dy, "dy")
    require_shape(dy, (*x_shape[:2], *sizes), "dy")
    if sizes == x_shape[2:]:
        return xp.asarray(dy, copy=True)
    prepared = prepared_kernel(x_shape, sizes, dy, xp)
    if prepared is not None:
        return channels_first(prepared.averages_backward(channels_last(dy, xp)), xp)
    for axis, m in reversed(list(enumerate(sizes, start=2))):
        n = x_shape[axis]
        if m == n:
            continue
        shape = tuple(n if a == axis else size for a, size in enumerate(dy.shape))
        dx = xp.zeros(shape, dtype=dy.dtype, device=device(dy))
        for i, cells in enumerate(bins(n, m)):
            share = dy[_at(axis, slice(i, i + 1))] / scalar(cells.stop - cells.start, dy, xp)
            dx[_at(axis, cells)] += share
        dy = dx
    return dy


def _at(axis: int, cells: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, cells, ...)


def _mean(x: Array, axis: int, xp: Namespace) -> Array:
    return xp.sum(x, axis=axis, keepdims=True) / scalar(x.shape[axis], x, xp)
