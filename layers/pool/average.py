"""Average pooling.

With input ``x (N, C, *S)`` and windows of cells ``k`` at stride ``s`` and dilation ``d``::

    y[n, c, o]  = sum over k of  x[n, c, o*s + k*d] / divisor[o]
    dx[n, c, i] = sum of dy[n, c, o] / divisor[o] over the windows o that contain cell i

The divisor is the number of the window's cells in the padded input, or in the input with ``count_include_pad=False``,
so that cells which ``ceil_mode`` adds never count; ``divisor_override`` replaces it.

Sources: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998; ONNX, operator AveragePool
since version 19, for the dilation.
"""

from collections.abc import Callable
from typing import Any

from array_api_compat import device

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace, require_float, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.batch_blocks import over_blocks
from ..core.elementwise import clamp, scalar
from ..windows.geometry import Geometry, Padding, Size
from ..windows.padding import pad
from .geometry import pool_geometry, pool_geometry_of_shape
from .window_sums import along_axis, scatter, sum_windows


@without_graph
def avg_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: Size = 1,
    xp: Namespace | None = None,
) -> Array:
    """Average over windows of ``x (N, C, *S)``: ``(N, C, *O)``.

    The parameters are those of `max_pool`. With ``count_include_pad=False`` an average is over the window's cells
    inside the input; with ``divisor_override`` every sum is divided by that number.
    """
    xp = namespace(xp, input=x)
    geometry = pool_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    inner = channels_last(x, xp)
    prepared = _prepared(tuple(x.shape), x, geometry, count_include_pad, divisor_override, xp)
    if prepared is not None:
        return channels_first(prepared.forward(inner), xp)
    divisor = _divisor(geometry, x, tuple(x.shape[2:]), count_include_pad, divisor_override, xp)
    y = xp.empty((x.shape[0], *geometry.windows.count, x.shape[1]), dtype=x.dtype, device=device(x))

    def work(samples: slice) -> None:
        cells = pad(inner[samples, ...], geometry, 0.0, xp)
        y[samples, ...] = sum_windows(cells, geometry.windows, xp) / divisor

    over_blocks(work, x, xp)
    return channels_first(y, xp)


@without_graph
def avg_pool_backward(
    dy: Array,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: Size = 1,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `avg_pool`: ``dx`` for ``dy (N, C, *O)``."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    x_shape = checks.shape("x_shape", x_shape)
    geometry = pool_geometry_of_shape(x_shape, kernel_size, stride, padding, dilation, ceil_mode)
    require_shape(dy, (x_shape[0], x_shape[1], *geometry.windows.count), "dy")
    upstream = channels_last(dy, xp)
    prepared = _prepared(x_shape, dy, geometry, count_include_pad, divisor_override, xp)
    if prepared is not None:
        return channels_first(prepared.backward(upstream), xp)
    divisor = _divisor(geometry, dy, tuple(x_shape[2:]), count_include_pad, divisor_override, xp)

    def shares(samples: slice) -> Callable[[int], Array]:
        share = upstream[samples, ...] / divisor
        return lambda k: share

    return scatter(shares, dy, x_shape, geometry, xp)


def check_divisor(divisor_override: int | None) -> int | None:
    """The checked argument; None divides by the number of cells."""
    return None if divisor_override is None else checks.integer("divisor_override", divisor_override, 1)


def _prepared(
    shape: tuple[int, ...],
    like: Array,
    geometry: Geometry,
    count_include_pad: bool,
    override: int | None,
    xp: Namespace,
) -> Any:
    """An engine's pool of an input ``(N, C, *S)`` of that shape, or None."""
    include = checks.flag("count_include_pad", count_include_pad)
    problem = (geometry, (shape[0], *shape[2:], shape[1]), include, check_divisor(override))
    return operations_of(xp).prepare("average pool", problem, dtype_name(like.dtype))


def _divisor(
    geometry: Geometry,
    like: Array,
    spatial: tuple[int, ...],
    count_include_pad: bool,
    override: int | None,
    xp: Namespace,
) -> Array:
    """The divisor of each window's sum, ``(1, *O, 1)``, or 0-d if it is the same for all."""
    if override is not None:
        return scalar(override, like, xp)
    w = geometry.windows
    full = count_include_pad and not any(geometry.overhang)
    if full or not geometry.is_padded:
        return scalar(w.cells, like, xp)
    counts = None
    for axis, (k, s, d, o) in enumerate(zip(w.kernel, w.stride, w.dilation, w.count, strict=True)):
        before, after = geometry.padding[axis]
        low, high = (0, before + spatial[axis] + after) if count_include_pad else (before, before + spatial[axis])
        start = xp.arange(o, dtype=xp.int32, device=device(like)) * s
        # The cells before `high`, less those before `low`: start + i*d < high for i below (high - start) / d.
        inside = clamp(-((start - high) // d), 0, k, xp) - clamp(-((start - low) // d), 0, k, xp)
        inside = along_axis(xp.astype(inside, like.dtype), axis, len(w.count), xp)
        counts = inside if counts is None else counts * inside
    return counts
