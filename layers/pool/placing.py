"""What all pools over windows share: checking, placing, adding up and scattering.

All loops are over the few cells of a window; each step is one strided slice of the whole batch.
"""

from collections.abc import Callable, Sequence

from array_api_compat import device

from ...backends.types import Array, Namespace
from ..arrays import channels_first, padded_shape, require_float, unpad
from ..geometry import Geometry, Padding, Size, place_windows, spread


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
        raise ValueError(f"pooling takes (N, C, *spatial) with at least one spatial axis, got shape {shape}")
    kernel = spread(kernel_size, axes, "kernel_size")
    geometry = place_windows(
        shape[2:],
        kernel,
        kernel if stride is None else spread(stride, axes, "stride"),
        padding,
        spread(dilation, axes, "dilation"),
        ceil_mode,
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, geometry.windows.dilation, strict=True)]
    halves = [max(pair) * 2 <= r for pair, r in zip(geometry.padding, reach, strict=True)]
    explicit = isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding)
    if not all(halves) and not explicit:
        raise ValueError(
            f"padding {padding!r} is more than half of the window's {tuple(reach)} cells; if it is meant, write it as "
            f"(before, after) pairs"
        )
    for axis, n in enumerate(shape[2:]):
        # With padding of at most half a window only dilated cells can step over the input.
        certain = halves[axis] and n >= geometry.windows.dilation[axis]
        if not n or not (certain or _sees_input(axis, n, geometry)):
            raise ValueError(f"input {shape[2:]} with padding {geometry.padding}: a window would hold padding only")
    return geometry


def _sees_input(axis: int, n: int, geometry: Geometry) -> bool:
    """Whether every window has a cell of the input along an axis."""
    w, before = geometry.windows, geometry.padding[axis][0]
    k, s, d = w.kernel[axis], w.stride[axis], w.dilation[axis]
    return all(any(0 <= o * s + i * d - before < n for i in range(k)) for o in range(w.count[axis]))


def sum_windows(cells: Array, geometry: Geometry) -> Array:
    """Sum over each window of a padded channels-last array, cell after cell."""
    first, *others = geometry.windows.slices()
    total = cells[first]
    for index in others:
        total = total + cells[index]
    return total


def scatter(
    share: Callable[[int, tuple[slice, ...]], Array],
    dy: Array,
    x_shape: tuple[int, ...],
    geometry: Geometry,
    xp: Namespace,
) -> Array:
    """Add ``share(k, index) (N, *O, C)`` to the input cells ``index`` that kernel cell ``k`` reads, for all ``k``."""
    inner = (x_shape[0], *x_shape[2:], x_shape[1])
    dx = xp.zeros(padded_shape(inner, geometry), dtype=dy.dtype, device=device(dy))
    for k, index in enumerate(geometry.windows.slices()):
        dx[index] += share(k, index)
    return channels_first(unpad(dx, geometry, tuple(x_shape[2:])), xp)


def along_axis(values: Array, axis: int, axes: int, xp: Namespace) -> Array:
    """Lay a vector along one spatial axis of ``(N, *spatial, C)``."""
    return xp.reshape(values, (1, *(values.shape[0] if a == axis else 1 for a in range(axes)), 1))
