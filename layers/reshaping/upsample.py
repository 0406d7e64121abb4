"""Nearest-neighbour upsampling by whole factors.

Along each spatial axis, with scale factor ``s``::

    y[..., o] = x[..., o // s]          dx[..., i] = sum over o with o // s = i of  dy[..., o]
"""

from typing import Any, ClassVar, Unpack

from ...backends.contractions.windows import Windows
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, spatial_shape
from ..core.axis_order import channels_first, channels_last
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..windows.geometry import Size


@without_graph
def upsample_nearest(x: Array, scale_factor: Size, *, xp: Namespace | None = None) -> Array:
    """Repeat each cell of ``x (N, C, *S)`` ``scale_factor`` times along each spatial axis: ``(N, C, *(S * scale))``.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis.
    scale_factor : int or sequence of int
        Per spatial axis, at least 1.

    Raises
    ------
    ValueError, TypeError
        For a scale factor out of range, or an input without spatial axes.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    scale = checks.per_axis("scale_factor", scale_factor, len(spatial_shape(tuple(x.shape))))
    cells = channels_last(x, xp)
    for axis, times in enumerate(scale):
        cells = xp.repeat(cells, times, axis=axis + 1)
    return channels_first(cells, xp)


@without_graph
def upsample_nearest_backward(dy: Array, scale_factor: Size, *, xp: Namespace | None = None) -> Array:
    """Gradient of `upsample_nearest` for ``dy (N, C, *(S * scale))``: the sum over the copies of each cell."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    spatial = spatial_shape(tuple(dy.shape))
    scale = checks.per_axis("scale_factor", scale_factor, len(spatial))
    if any(n % s for n, s in zip(spatial, scale, strict=True)):
        raise ValueError(f"spatial axes of dy must be multiples of {scale}, got shape {tuple(dy.shape)}")
    cells = channels_last(dy, xp)
    count = tuple(n // s for n, s in zip(spatial, scale, strict=True))
    first, *others = Windows(scale, scale, (1,) * len(scale), count).slices()
    dx = cells[first]
    for index in others:
        dx = dx + cells[index]
    return channels_first(dx, xp)


class Upsample(Layer):
    """Repeat each cell along the spatial axes of ``(N, C, *S)``; see `upsample_nearest`.

    Parameters
    ----------
    scale_factor : int or sequence of int
        A sequence has one entry for each spatial axis of the input.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("scale_factor", ...),)

    def __init__(self, scale_factor: Size, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        scale_factor = checks.listed(scale_factor)
        axes = len(scale_factor) if checks.is_sequence(scale_factor) else 1
        self.scale_factor = checks.size("scale_factor", scale_factor, axes)

    def _output_shape(self, shape: Shape) -> Shape:
        spatial = spatial_shape(shape)
        scale = checks.per_axis("scale_factor", self.scale_factor, len(spatial))
        return (*shape[:2], *(n * s for n, s in zip(spatial, scale, strict=True)))

    def _forward(self, x: Array) -> Array:
        return upsample_nearest(x, self.scale_factor, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return upsample_nearest_backward(dy, self.scale_factor, xp=self.backend.xp)
