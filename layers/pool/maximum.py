"""Max-pooling.

With input ``x (N, C, *S)`` and windows of cells ``k`` at stride ``s`` and dilation ``d``::

    y[n, c, o]  = max over k of  x[n, c, o*s + k*d]
    dx[n, c, i] = sum of dy[n, c, o] over the windows o whose maximum is cell i

Of equal cells the first of the window in row-major order is the maximum, as in PyTorch. Padding is never the maximum;
NaN is, wherever a window has one.

Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any

from array_api_compat import device

from ...backends import operations_of
from ...backends.contractions.windows import Windows
from ...backends.kept_calls import kept_calls
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, DType, Namespace, dtype_name
from ..core.array_checks import namespace, require_same_dtype, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.batch_blocks import over_blocks
from ..windows.geometry import Geometry, Padding, Size
from ..windows.padding import pad
from .geometry import pool_geometry
from .window_sums import along_axis, cells_along, scatter

# Numbers between neighbouring windows up to which all positions of the last axis are computed.
DENSE_DISTANCE = 32


@without_graph
def max_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    xp: Namespace | None = None,
) -> Any:
    """Maximum over windows of ``x (N, C, *S)``: ``(N, C, *O)``.

    Parameters
    ----------
    x : array
        float32 or float64, at least one spatial axis.
    kernel_size, stride, dilation : int or sequence of int
        Per axis; ``stride`` is the kernel size unless given.
    padding
        As in `conv`; its cells are never the maximum. More than half a window of padding must be given as pairs, and
        every window must read a cell of the input.
    ceil_mode : bool
        Round the output size up: a last window may reach beyond the padding.
    return_indices : bool
        Also return the flat row-major indices of the maxima in each plane, as PyTorch does.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, and for a window that is larger than the padded input or reads padding only.
    """
    xp = namespace(xp, input=x)
    checks.flag("return_indices", return_indices)
    geometry = pool_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    y, cell = max_cells(x, geometry, xp)
    return (y, plane_indices(cell, geometry, tuple(x.shape[2:]), xp)) if return_indices else y


@without_graph
def max_pool_backward(
    dy: Array,
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `max_pool`: ``dx`` for ``dy (N, C, *O)`` and the options of `max_pool`."""
    xp = namespace(xp, dy=dy, input=x)
    require_same_dtype(dy=dy, input=x)
    geometry = pool_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    _, cell = max_cells(x, geometry, xp)
    return scatter_maxima(dy, cell, tuple(x.shape), geometry, xp)


@kept_calls(1)
def max_cells(x: Array, geometry: Geometry, xp: Namespace) -> tuple[Array, Array]:
    """The maximum of each window, and the row-major index of its cell in the window, ``(N, C, *O)`` both."""
    ops, inner = operations_of(xp), channels_last(x, xp)
    prepared = prepared_max(x, tuple(x.shape), geometry, xp)
    if prepared is not None:
        best, cell = prepared.forward(inner)
        return channels_first(best, xp), channels_first(cell, xp)
    index_dtype = xp.int8 if geometry.windows.cells <= 127 else xp.int32
    shape = (x.shape[0], *geometry.windows.count, x.shape[1])
    best = xp.empty(shape, dtype=x.dtype, device=device(x))
    cell = xp.empty(shape, dtype=index_dtype, device=device(x))
    first = _first_inside(geometry, x, index_dtype, xp) if geometry.is_padded else None
    if not ops.free_order:
        search, windows, step = _cell_by_cell, geometry.windows, 1
    else:
        search, (windows, step) = _axis_by_axis, _dense(geometry.windows, geometry, x.shape[1])

    def work(samples: slice) -> None:
        cells = _padded(inner[samples, ...], geometry, xp)
        values, indices = search(cells, windows, first, index_dtype, xp)
        best[samples, ...], cell[samples, ...] = values[..., ::step, :], indices[..., ::step, :]

    over_blocks(work, x, xp)
    return channels_first(best, xp), channels_first(cell, xp)


def maxima(x: Array, geometry: Geometry, xp: Namespace) -> Array:
    """The maximum of each window, ``(N, C, *O)``: as `max_cells`, without the cells."""
    ops = operations_of(xp)
    prepared = prepared_max(x, tuple(x.shape), geometry, xp)
    if not ops.free_order or prepared is not None:
        return max_cells(x, geometry, xp)[0]
    inner, (windows, step) = channels_last(x, xp), _dense(geometry.windows, geometry, x.shape[1])
    best = xp.empty((x.shape[0], *geometry.windows.count, x.shape[1]), dtype=x.dtype, device=device(x))

    def work(samples: slice) -> None:
        values = _padded(inner[samples, ...], geometry, xp)
        for axis in range(len(windows.kernel)):
            values = reduce(xp.maximum, [values[place] for place in cells_along(windows, axis)])
        best[samples, ...] = values[..., ::step, :]

    over_blocks(work, x, xp)
    return channels_first(best, xp)


def prepared_max(like: Array, shape: tuple[int, ...], geometry: Geometry, xp: Namespace) -> Any:
    """An engine's pool of an input ``(N, C, *S)`` of that shape, in the dtype of an array; None if there is none."""
    problem = geometry, (shape[0], *shape[2:], shape[1])
    return operations_of(xp).prepare("max pool", problem, dtype_name(like.dtype))


def _padded(x: Array, geometry: Geometry, xp: Namespace) -> Array:
    """``x (N, *S, C)``, padded by minus infinity."""
    return pad(x, geometry, -float("inf"), xp)


def _cell_by_cell(
    cells: Array, windows: Windows, first: Array | None, index_dtype: DType, xp: Namespace
) -> tuple[Array, Array]:
    """Maxima and their cells by comparing a window's cells one after the other; of -0 and 0 the first is chosen."""
    start, *others = windows.slices()
    best = xp.asarray(cells[start], copy=True)
    cell = xp.zeros(best.shape, dtype=index_dtype, device=device(cells))
    if first is not None:
        cell = cell + first
    for k, index in enumerate(others, start=1):
        candidate = cells[index]
        # not (candidate <= best), so that NaN wins; a second NaN does not
        wins = xp.logical_and(xp.logical_not(candidate <= best), best == best)
        best = xp.where(wins, candidate, best)
        cell = xp.maximum(cell, xp.astype(wins, index_dtype) * k)
    return best, cell


def _axis_by_axis(
    cells: Array, windows: Windows, first: Array | None, index_dtype: DType, xp: Namespace
) -> tuple[Array, Array]:
    """Maxima along one axis after the other, the last first, in fewer and longer passes.

    Along an axis the first candidate that is not below the maximum wins, and the last one if all before it are below.
    For each candidate, ``cell`` has the row-major index of its maximum in the axes that are done.
    """
    best, cell = cells, None
    for axis in reversed(range(len(windows.kernel))):
        places, step = cells_along(windows, axis), prod(windows.kernel[axis + 1 :])
        candidates = [best[place] for place in places]
        best = reduce(xp.maximum, candidates)
        found = None if cell is None else cell[places[-1]]
        for place, candidate in reversed(list(zip(places, candidates, strict=True))[:-1]):
            # A NaN is never beaten. Where the maximum is NaN, every number is, because it differs from NaN.
            beaten = xp.astype(xp.logical_and(candidate != best, candidate == candidate), index_dtype)
            if cell is not None:
                found = (found - cell[place] + step) * beaten + cell[place]
            else:
                found = beaten if found is None else (found + 1) * beaten
        cell = found
    if cell is None:
        cell = xp.zeros(best.shape, dtype=index_dtype, device=device(best))
    # In a window of minus infinities the first cell of the input wins, not one of the padding.
    return best, cell if first is None else xp.maximum(cell, xp.broadcast_to(first, cell.shape))


def _dense(windows: Windows, geometry: Geometry, channels: int) -> tuple[Windows, int]:
    """Windows at stride 1 along the last axis, and the step between those that are needed.

    Where channels are few, a pass over all positions is faster than one over short runs at a stride.
    """
    stride, count = windows.stride[-1], windows.count[-1]
    if geometry.is_padded or channels * stride > DENSE_DISTANCE or not count:
        return windows, 1
    count = (count - 1) * stride + 1
    return replace(windows, stride=(*windows.stride[:-1], 1), count=(*windows.count[:-1], count)), stride


@kept_calls(2)
def scatter_maxima(dy: Array, cell: Array, x_shape: tuple[int, ...], geometry: Geometry, xp: Namespace) -> Array:
    """``dx``: each window's ``dy`` at its cell of `max_cells`, added up."""
    require_shape(dy, (*x_shape[:2], *geometry.windows.count), "dy")
    upstream, winner, ops = channels_last(dy, xp), channels_last(cell, xp), operations_of(xp)
    prepared = prepared_max(dy, x_shape, geometry, xp)
    if prepared is not None:
        return channels_first(prepared.backward(upstream, winner), xp)

    def shares(samples: slice) -> Callable[[int], Array]:
        d, w = upstream[samples, ...], winner[samples, ...]
        return lambda k: ops.select(w == k, d)

    return scatter(shares, dy, x_shape, geometry, xp)


def plane_indices(cell: Array, geometry: Geometry, spatial: tuple[int, ...], xp: Namespace) -> Array:
    """The cells of `max_cells` as flat row-major indices into each plane of the input."""
    w = geometry.windows
    remaining = xp.astype(channels_last(cell, xp), xp.int64)
    flat, step = xp.zeros_like(remaining), 1
    for axis in reversed(range(len(spatial))):
        start = xp.arange(w.count[axis], dtype=xp.int64, device=device(cell)) * w.stride[axis]
        start = along_axis(start - geometry.padding[axis][0], axis, len(spatial), xp)
        flat = flat + (start + remaining % w.kernel[axis] * w.dilation[axis]) * step
        remaining = remaining // w.kernel[axis]
        step *= spatial[axis]
    return channels_first(flat, xp)


def _first_inside(geometry: Geometry, x: Array, index_dtype: DType, xp: Namespace) -> Array:
    """For each window the row-major index of its first cell that is not padding, ``(1, *O, 1)``."""
    w = geometry.windows
    first = None
    for axis, (k, s, d, o) in enumerate(zip(w.kernel, w.stride, w.dilation, w.count, strict=True)):
        before = geometry.padding[axis][0]
        start = xp.arange(o, dtype=xp.int32, device=device(x)) * s - before
        skipped = -xp.minimum(start // d, xp.zeros_like(start))
        skipped = along_axis(skipped, axis, len(w.count), xp)
        first = skipped if first is None else first * k + skipped
    return xp.astype(first, index_dtype)
