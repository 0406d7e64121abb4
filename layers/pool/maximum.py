"""Max-pooling.

With input ``x (N, C, *S)`` and windows of cells ``k`` at stride ``s`` and dilation ``d``::

    y[n, c, o]  = max over k of  x[n, c, o*s + k*d]
    dx[n, c, i] = sum of dy[n, c, o] over the windows o whose maximum is cell i

A tie goes to the first cell of the window in row-major order, as in PyTorch; cells of the padding never win, NaN wins
and propagates.

Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998.
"""

from typing import Any

from array_api_compat import device

from ...backends.types import Array, Namespace
from ..arrays import channels_first, channels_last, namespace, pad, require_same_dtype, require_shape, zero
from ..geometry import Geometry, Padding, Size
from .placing import along_axis, place_pool, scatter


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
        As in `conv`; padding cells never win. More than half a window of them has to be written as pairs, and every
        window must have a cell of the input.
    ceil_mode : bool
        Round the output size up: a last window may reach beyond the padding.
    return_indices : bool
        Also return where the maxima are: flat row-major indices into each plane, as PyTorch gives them.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, a window larger than the padded input or without a cell of it.
    """
    xp = namespace(xp, x)
    geometry = place_pool(x, kernel_size, stride, padding, dilation, ceil_mode)
    y, cell = max_cells(x, geometry, xp)
    return (y, plane_indices(cell, geometry, tuple(x.shape[2:]), xp)) if return_indices else y


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
    """Gradient of `max_pool`: ``dx`` for ``dy (N, C, *O)``; takes what `max_pool` took."""
    xp = namespace(xp, dy, x)
    require_same_dtype(dy=dy, input=x)
    geometry = place_pool(x, kernel_size, stride, padding, dilation, ceil_mode)
    _, cell = max_cells(x, geometry, xp)
    return scatter_maxima(dy, cell, tuple(x.shape), geometry, xp)


def max_cells(x: Array, geometry: Geometry, xp: Namespace) -> tuple[Array, Array]:
    """The maximum of each window, and the row-major index of its cell in the window, ``(N, C, *O)`` both."""
    cells = pad(channels_last(x, xp), geometry, -float("inf"), xp)
    index_dtype = xp.int8 if geometry.windows.cells <= 127 else xp.int32
    first, *others = geometry.windows.slices()
    best = xp.asarray(cells[first], copy=True)
    cell = xp.zeros(best.shape, dtype=index_dtype, device=device(x))
    if geometry.is_padded:
        cell = cell + xp.astype(_first_inside(geometry, x, xp), index_dtype)
    for k, index in enumerate(others, start=1):
        candidate = cells[index]
        # not (candidate <= best), so that NaN wins, but no second NaN after the first
        wins = xp.logical_and(xp.logical_not(candidate <= best), best == best)
        best = xp.where(wins, candidate, best)
        cell = xp.maximum(cell, xp.astype(wins, index_dtype) * k)
    return channels_first(best, xp), channels_first(cell, xp)


def scatter_maxima(dy: Array, cell: Array, x_shape: tuple[int, ...], geometry: Geometry, xp: Namespace) -> Array:
    """``dx`` with each window's ``dy`` at the cell that `max_cells` named."""
    require_shape(dy, (*x_shape[:2], *geometry.windows.count), "dy")
    upstream, winner = channels_last(dy, xp), channels_last(cell, xp)
    nothing = zero(dy, xp)
    return scatter(lambda k, index: xp.where(winner == k, upstream, nothing), dy, x_shape, geometry, xp)


def plane_indices(cell: Array, geometry: Geometry, spatial: tuple[int, ...], xp: Namespace) -> Array:
    """The cells that `max_cells` named, as flat row-major indices into each plane of the input."""
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


def _first_inside(geometry: Geometry, x: Array, xp: Namespace) -> Array:
    """For each window the row-major index of its first cell that is not padding, ``(1, *O, 1)``."""
    w = geometry.windows
    first = None
    for axis, (k, s, d, o) in enumerate(zip(w.kernel, w.stride, w.dilation, w.count, strict=True)):
        before = geometry.padding[axis][0]
        start = xp.arange(o, dtype=xp.int32, device=device(x)) * s - before
        skipped = -xp.minimum(start // d, xp.zeros_like(start))
        skipped = along_axis(skipped, axis, len(w.count), xp)
        first = skipped if first is None else first * k + skipped
    return first
