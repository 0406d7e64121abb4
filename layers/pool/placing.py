"""What all pools over windows share: checking, placing, adding up and scattering.

All loops are over the few cells of a window; each step is one strided slice of the whole batch.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from math import prod
from operator import add
from typing import Any

from array_api_compat import device

from ...backends import operations_of, overrides
from ...backends.contractions.windows import Windows
from ...backends.engines.numba import Kernels
from ...common import checks
from ...common.types import Array, Namespace
from ..core.arrays import channels_first, over_blocks, padded_shape, require_float, unpad
from ..core.geometry import Geometry, Padding, Size, check_padding, place_windows, require_padding

# Cells of all windows together below which a kernel is not worth loading.
LEAST = 1 << 18
# Channels below which a kernel, which takes all channels of a cell at once, is slower than array functions.
CHANNELS = 16


def place_pool(
    x: Array, kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    """Check an input and the arguments of its pooling, and place the windows."""
    require_float(x)
    return place_shape(tuple(x.shape), kernel_size, stride, padding, dilation, ceil_mode)


def place_shape(
    shape: tuple[int, ...], kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    """`place_pool` for a shape alone."""
    axes = len(shape) - 2
    if axes < 1:
        raise ValueError(f"input must have shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    kernel = checks.per_axis("kernel_size", kernel_size, axes)
    strides = kernel if stride is None else checks.per_axis("stride", stride, axes)
    dilations = checks.per_axis("dilation", dilation, axes)
    ceil_mode = checks.flag("ceil_mode", ceil_mode)
    return _placed(shape[2:], kernel, strides, check_padding(padding, axes), dilations, ceil_mode)


@lru_cache(maxsize=1024)
def _placed(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Geometry:
    geometry = place_windows(spatial, kernel, stride, padding, dilation, ceil_mode)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, geometry.windows.dilation, strict=True)]
    halves = [max(pair) * 2 <= r for pair, r in zip(geometry.padding, reach, strict=True)]
    explicit = isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding)
    if not all(halves) and not explicit:
        raise ValueError(
            f"padding {padding!r} is more than half of the window's {tuple(reach)} cells; if it is meant, write it as "
            f"(before, after) pairs"
        )
    require_padding(spatial, geometry.padding, geometry.windows.count)
    for axis, n in enumerate(spatial):
        # With padding of at most half a window only dilated cells can step over the input.
        certain = halves[axis] and n >= geometry.windows.dilation[axis]
        if not n or not (certain or _sees_input(axis, n, geometry)):
            raise ValueError(f"input {spatial} with padding {geometry.padding}: a window would hold padding only")
    return geometry


def _sees_input(axis: int, n: int, geometry: Geometry) -> bool:
    """Whether every window has a cell of the input along an axis."""
    w, before = geometry.windows, geometry.padding[axis][0]
    k, s, d, count = w.kernel[axis], w.stride[axis], w.dilation[axis], w.count[axis]
    # Of a window that begins before the input the first cell that is not before it; none begins behind it.
    early = (before - o * s for o in range(min(count, -(-before // s))))
    return (count - 1) * s - before < n and all(-(-ahead // d) < k and -ahead % d < n for ahead in early)


def sum_windows(cells: Array, windows: Windows, xp: Namespace) -> Array:
    """Sum over each window of a padded channels-last array, along one axis after the other."""
    if not operations_of(xp).free_order:
        return reduce(add, (cells[index] for index in windows.slices()))
    for axis in range(len(windows.kernel)):
        cells = reduce(add, (cells[place] for place in along(windows, axis)))
    return cells


def along(windows: Windows, axis: int) -> list[tuple[Any, ...]]:
    """For each kernel cell of one spatial axis, where all windows read it in ``(N, *spatial, C)``."""
    s, d, o = windows.stride[axis], windows.dilation[axis], windows.count[axis]
    before = (slice(None),) * (axis + 1)
    return [(*before, slice(i * d, i * d + (o - 1) * s + 1, s), ...) for i in range(windows.kernel[axis])]


def compiled(x: Array, geometry: Geometry, xp: Namespace) -> Kernels | None:
    """Compiled kernels that take the windows over ``x (N, C, *S)``, and have enough to do."""
    ops, windows = operations_of(xp), geometry.windows
    read = prod(x.shape[:2]) * prod(windows.count) * windows.cells
    takes = x.dtype == xp.float32 and len(windows.count) < 3 and windows.cells <= 127
    pays = not overrides.small(x.shape[1], CHANNELS) and not overrides.small(read, LEAST)
    return ops.kernels if takes and pays and ops.free_order else None


def scatter(
    shares: Callable[[slice], Callable[[int], Array]],
    dy: Array,
    x_shape: tuple[int, ...],
    geometry: Geometry,
    xp: Namespace,
) -> Array:
    """Add up at each input cell what the windows that hold it give it.

    ``shares(samples)(k) (n, *O, C)`` is what each window of some samples gives the input cell that its kernel cell
    ``k`` reads.
    """
    ops, w = operations_of(xp), geometry.windows
    inner = (x_shape[0], *x_shape[2:], x_shape[1])
    wide = padded_shape(inner, geometry)
    dx = xp.empty(inner, dtype=dy.dtype, device=device(dy))
    apart = all(s > (k - 1) * d for k, s, d in zip(w.kernel, w.stride, w.dilation, strict=True))
    once = apart and not geometry.is_padded and ops.views
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
    """Lay a vector along one spatial axis of ``(N, *spatial, C)``."""
    return xp.reshape(values, (1, *(values.shape[0] if a == axis else 1 for a in range(axes)), 1))
