"""Adaptive max-pooling; the bins are those of `adaptive_bins`.

As in max-pooling over windows, the gradient of a maximum goes to its first cell in row-major order, and NaN is the
maximum wherever a bin has one. Loops run over bins, never over cells.
"""

from math import prod

from array_api_compat import device

from ...backends.execution.blocks import concat_all
from ...backends.inputs import describe
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace, require_float, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.elementwise import zero
from ..core.maximum import first_maximum
from .adaptive_bins import OutputSize, bin_boxes, output_sizes, prepared_kernel


@without_graph
def adaptive_max_pool(
    x: Array, output_size: OutputSize, *, return_indices: bool = False, xp: Namespace | None = None
) -> Array | tuple[Array, Array]:
    """Maxima over the bins of ``x (N, C, *S)``: ``(N, C, *output_size)``.

    With ``return_indices`` also their flat row-major indices in each plane, as in PyTorch.
    """
    xp = namespace(xp, input=x)
    sizes = output_sizes(tuple(x.shape), output_size)
    require_float(x)
    checks.flag("return_indices", return_indices)
    prepared = prepared_kernel(tuple(x.shape), sizes, x, xp)
    if prepared is not None:
        y, where = prepared.maxima(channels_last(x, xp))
        return (channels_first(y, xp), channels_first(where, xp)) if return_indices else channels_first(y, xp)
    lead, spatial = tuple(x.shape[:2]), tuple(x.shape[2:])
    values, indices = [], []
    for box in bin_boxes(spatial, sizes):
        inner = tuple(cells.stop - cells.start for cells in box)
        flat = xp.reshape(x[(slice(None), slice(None), *box)], (*lead, prod(inner)))
        first = xp.expand_dims(first_maximum(flat, xp), axis=-1)
        values.append(xp.take_along_axis(flat, first, axis=-1))
        indices.append(_plane_index(first, inner, box, spatial, xp))
    y = xp.reshape(concat_all(values, -1, xp), (*lead, *sizes))
    return (y, xp.reshape(concat_all(indices, -1, xp), (*lead, *sizes))) if return_indices else y


@without_graph
def adaptive_max_pool_backward(
    dy: Array, indices: Array, x_shape: tuple[int, ...], output_size: OutputSize, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `adaptive_max_pool`: ``dy`` of each bin at the cell of ``indices``, added up."""
    xp, x_shape = namespace(xp, dy=dy, indices=indices), checks.shape("x_shape", x_shape)
    sizes = output_sizes(x_shape, output_size)
    require_float(dy, "dy")
    if not dtype_name(indices.dtype).startswith("int"):
        raise TypeError(f"indices must be integers, got {describe(indices)}")
    for array, name in ((dy, "dy"), (indices, "indices")):
        require_shape(array, (*x_shape[:2], *sizes), name)
    prepared = prepared_kernel(x_shape, sizes, dy, xp)
    if prepared is not None and indices.dtype == xp.int64:
        return channels_first(prepared.maxima_backward(channels_last(dy, xp), channels_last(indices, xp)), xp)
    lead, spatial = x_shape[:2], x_shape[2:]
    upstream = xp.reshape(dy, (*lead, prod(sizes)))
    winner = xp.reshape(indices, (*lead, prod(sizes)))
    dx = xp.zeros((*lead, *spatial), dtype=dy.dtype, device=device(dy))
    plane = xp.reshape(xp.arange(prod(spatial), dtype=winner.dtype, device=device(dy)), (1, 1, *spatial))
    nothing = zero(dy, xp)
    for i, box in enumerate(bin_boxes(spatial, sizes)):
        place = (slice(None), slice(None), *box)
        one = (slice(None), slice(None), *(None for _ in spatial))
        dx[place] += xp.where(plane[place] == winner[:, :, i][one], upstream[:, :, i][one], nothing)
    return dx


def _plane_index(
    flat: Array, inner: tuple[int, ...], box: tuple[slice, ...], spatial: tuple[int, ...], xp: Namespace
) -> Array:
    """A flat index into a box as one into the plane."""
    index, remaining = xp.zeros_like(flat), flat
    step = 1
    for size, cells, n in reversed(list(zip(inner, box, spatial, strict=True))):
        index = index + (remaining % size + cells.start) * step
        remaining = remaining // size
        step *= n
    return index
