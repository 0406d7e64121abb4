"""Sums over windows and their adjoint, on which average and Lp pooling and all gradients of pools are built.

All loops are over the cells of a window, which are few; each step is one strided slice of a block of the batch.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

from array_api_compat import device

from ...backends import operations_of
from ...backends.contractions.windows import Windows
from ...common.types import Array, Namespace
from ..core.axis_order import channels_first
from ..core.batch_blocks import over_blocks
from ..windows.geometry import Geometry
from ..windows.padding import padded_shape, unpad


def sum_windows(cells: Array, windows: Windows, xp: Namespace) -> Array:
    """Sum over each window of a padded channels-last array, along one axis after the other."""
    if not operations_of(xp).free_order:
        return reduce(add, (cells[index] for index in windows.slices()))
    for axis in range(len(windows.kernel)):
        cells = reduce(add, (cells[place] for place in cells_along(windows, axis)))
    return cells


def cells_along(windows: Windows, axis: int) -> list[tuple[Any, ...]]:
    """For each kernel cell along one spatial axis, the index at which all windows read it in ``(N, *spatial, C)``."""
    s, d, o = windows.stride[axis], windows.dilation[axis], windows.count[axis]
    before = (slice(None),) * (axis + 1)
    return [(*before, slice(i * d, i * d + (o - 1) * s + 1, s), ...) for i in range(windows.kernel[axis])]


def scatter(
    shares: Callable[[slice], Callable[[int], Array]],
    dy: Array,
    x_shape: tuple[int, ...],
    geometry: Geometry,
    xp: Namespace,
) -> Array:
    """``dx (N, C, *S)``: for each input cell the sum of the shares of the windows that read it.

    ``shares(samples)(k) (n, *O, C)`` is the share that each window of some samples has for the input cell that its
    kernel cell ``k`` reads.
    """
    ops, w = operations_of(xp), geometry.windows
    inner = (x_shape[0], *x_shape[2:], x_shape[1])
    wide = padded_shape(inner, geometry)
    dx = xp.empty(inner, dtype=dy.dtype, device=device(dy))
    disjoint = all(s > (k - 1) * d for k, s, d in zip(w.kernel, w.stride, w.dilation, strict=True))
    once = disjoint and not geometry.is_padded and ops.views
    full = once and all(o * k == n for k, o, n in zip(w.kernel, w.count, x_shape[2:], strict=True))

    def work(samples: slice) -> None:
        n = samples.stop - samples.start
        sums = dx[samples, ...] if once else ops.workspace("pool", (n, *wide[1:]), dy)
        if not full:
            sums[...] = 0.0
        share = shares(samples)
        for k, index in enumerate(w.slices()):
            if once:
                sums[index] = share(k)
            else:
                sums[index] += share(k)
        if not once:
            dx[samples, ...] = unpad(sums, geometry, tuple(x_shape[2:]))

    over_blocks(work, dx, xp)
    return channels_first(dx, xp)


def along_axis(values: Array, axis: int, axes: int, xp: Namespace) -> Array:
    """A vector, reshaped to broadcast along one spatial axis of ``(N, *spatial, C)``."""
    return xp.reshape(values, (1, *(values.shape[0] if a == axis else 1 for a in range(axes)), 1))
