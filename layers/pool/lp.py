"""Lp pooling.

With input ``x (N, C, *S)``, windows of cells ``k`` at stride ``s`` and dilation ``d``, and ``p >= 1``::

    y[n, c, o]  = (sum over k of  |x[n, c, o*s + k*d]|^p)^(1/p)
    dx[n, c, i] = sum of dy[n, c, o] * sign(x) * (|x[n, c, i]| / y[n, c, o])^(p-1) over the windows o with cell i

If a norm is 0, its gradient is 0. In a window with an infinite cell, that cell has the slope ``sign(x)`` and the others
have 0.

Source: C. Gulcehre et al., "Learned-norm pooling for deep feedforward and recurrent neural networks", 2014.
"""

from collections.abc import Callable
from math import inf

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_same_dtype, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.elementwise import clamp, sign, zero
from ..windows.geometry import Padding, Size
from ..windows.padding import pad
from .geometry import pool_geometry
from .window_sums import scatter, sum_windows


@without_graph
def lp_pool(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    xp: Namespace | None = None,
) -> Array:
    """Lp norm over windows of ``x (N, C, *S)``, ``p = norm_type >= 1``: ``(N, C, *O)``.

    The other parameters are those of `max_pool`; padding counts as 0.
    """
    xp = namespace(xp, input=x)
    p = check_power(norm_type)
    geometry = pool_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    cells = pad(channels_last(x, xp), geometry, 0.0, xp)
    return channels_first(lp_norm(cells, p, lambda powers: sum_windows(powers, geometry.windows, xp), xp), xp)


@without_graph
def lp_pool_backward(
    dy: Array,
    x: Array,
    y: Array,
    norm_type: float,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `lp_pool`, from its input ``x`` and output ``y``."""
    xp = namespace(xp, dy=dy, input=x, output=y)
    require_same_dtype(dy=dy, input=x, output=y)
    p = check_power(norm_type)
    geometry = pool_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    for array, name in ((dy, "dy"), (y, "output")):
        require_shape(array, (*x.shape[:2], *geometry.windows.count), name)
    cells = pad(channels_last(x, xp), geometry, 0.0, xp)
    upstream, norm = channels_last(dy, xp), channels_last(y, xp)

    places = list(geometry.windows.slices())

    def shares(samples: slice) -> Callable[[int], Array]:
        d, x, y = upstream[samples, ...], cells[samples, ...], norm[samples, ...]
        return lambda k: lp_norm_backward(d, x[places[k]], y, p, xp)

    return scatter(shares, dy, tuple(x.shape), geometry, xp)


def check_power(p: float) -> float:
    """The checked exponent of an Lp norm."""
    return checks.number("norm_type", p, least=1)


def lp_norm(x: Array, p: float, total: Callable[[Array], Array], xp: Namespace) -> Array:
    """``total(|x|^p)^(1/p)``, where ``total`` is any sum."""
    if p == 1:
        return total(xp.abs(x))
    if p == 2:
        return xp.sqrt(total(x * x))
    return xp.pow(total(xp.pow(xp.abs(x), float(p))), 1.0 / p)


def lp_norm_backward(dy: Array, x: Array, y: Array, p: float, xp: Namespace) -> Array:
    """``dy * sign(x) * (|x| / y)^(p-1)``, and 0 where the norm ``y`` is 0."""
    empty = y == 0.0
    if p == 1:
        share = sign(x, xp)
    else:
        infinite = xp.abs(x) == inf
        ratio = xp.where(infinite, zero(x, xp), x) / xp.where(empty, xp.ones_like(y), y)
        slope = ratio if p == 2 else sign(x, xp) * xp.pow(xp.abs(ratio), float(p - 1))
        share = xp.where(infinite, clamp(x, -1.0, 1.0, xp), slope)
    return xp.where(empty, zero(dy, xp), dy * share)
