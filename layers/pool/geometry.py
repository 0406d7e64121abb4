"""The arguments of pooling over windows: their checks, and the positions of the windows."""

from collections.abc import Sequence

from ...common import checks
from ...common.typed_cache import typed_cache
from ...common.types import Array
from ..core.array_checks import require_float
from ..windows.geometry import Geometry, Padding, Size, check_padding, place_windows, require_padding


def pool_geometry(
    x: Array, kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    """The windows of a pool over ``x (N, C, *S)``, after checks of all arguments."""
    require_float(x)
    return pool_geometry_of_shape(tuple(x.shape), kernel_size, stride, padding, dilation, ceil_mode)


def pool_geometry_of_shape(
    shape: tuple[int, ...], kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    """`pool_geometry` for an input of that shape."""
    return _checked(shape, kernel_size, stride, padding, dilation, ceil_mode)


@typed_cache(maxsize=1024)
def _checked(
    shape: tuple[int, ...], kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    axes = len(shape) - 2
    if axes < 1:
        raise ValueError(f"input must have shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    kernel = checks.per_axis("kernel_size", kernel_size, axes)
    strides = kernel if stride is None else checks.per_axis("stride", stride, axes)
    dilations = checks.per_axis("dilation", dilation, axes)
    ceil_mode = checks.flag("ceil_mode", ceil_mode)
    return _geometry(shape[2:], kernel, strides, check_padding(padding, axes), dilations, ceil_mode)


def _geometry(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Geometry:
    geometry = place_windows(spatial, kernel, stride, padding, dilation, ceil_mode)
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, geometry.windows.dilation, strict=True)]
    is_small = [max(pair) * 2 <= n for pair, n in zip(geometry.padding, extent, strict=True)]
    explicit = isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding)
    if not all(is_small) and not explicit:
        raise ValueError(
            f"padding {padding!r} is more than half of the window's {tuple(extent)} cells; if this is intended, give "
            f"it as (before, after) pairs"
        )
    require_padding(spatial, geometry.padding, geometry.windows.count)
    for axis, n in enumerate(spatial):
        # With padding of at most half a window, a window misses the input only if its dilation steps over it.
        certain = is_small[axis] and n >= geometry.windows.dilation[axis]
        if not n or not (certain or _sees_input(axis, n, geometry)):
            raise ValueError(f"input {spatial} with padding {geometry.padding}: a window would read padding only")
    return geometry


def _sees_input(axis: int, n: int, geometry: Geometry) -> bool:
    """Whether every window reads a cell of the input along an axis."""
    w, before = geometry.windows, geometry.padding[axis][0]
    k, s, d, count = w.kernel[axis], w.stride[axis], w.dilation[axis], w.count[axis]
    # No window may start after the input. One that starts before it must read its first cell past the padding.
    missing = (before - o * s for o in range(min(count, -(-before // s))))
    return (count - 1) * s - before < n and all(-(-m // d) < k and -m % d < n for m in missing)
