"""Padding with a constant.

With ``inside`` the cells of ``y`` that hold ``x``::

    y[inside] = x, else value          dx = dy[inside]
"""

from typing import Any, ClassVar, Unpack

from ...backends.contractions.windows import Windows
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_shape, spatial_shape
from ..core.axis_order import channels_first, channels_last
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..windows.geometry import Geometry, Padding, check_border, resolve_padding
from ..windows.padding import pad, unpad


@without_graph
def pad_constant(x: Array, padding: Padding, value: float = 0.0, *, xp: Namespace | None = None) -> Array:
    """Pad the spatial axes of ``x (N, C, *S)`` with ``value``.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis.
    padding : int, sequence of int, sequence of (int, int)
        Cells before and after each axis: the same for all, one per axis, or ``(before, after)`` pairs.
    value : float
        The value of the added cells.

    Returns
    -------
    array
        ``(N, C, *O)`` with ``O = S + before + after``.

    Raises
    ------
    ValueError, TypeError
        For a padding that is negative or not of these forms, or an input without spatial axes.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    geometry, value = _border(tuple(x.shape), padding), checks.number("value", value, infinite=True, nan=True)
    return channels_first(pad(channels_last(x, xp), geometry, value, xp), xp)


@without_graph
def pad_constant_backward(
    dy: Array, x_shape: tuple[int, ...], padding: Padding, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `pad_constant` for ``dy (N, C, *O)``: ``dy`` without the added cells, ``(N, C, *S)``."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    x_shape = checks.shape("x_shape", x_shape)
    geometry = _border(x_shape, padding)
    require_shape(dy, (*x_shape[:2], *geometry.windows.count), "dy")
    return channels_first(unpad(channels_last(dy, xp), geometry, x_shape[2:]), xp)


def _border(shape: tuple[int, ...], padding: Padding) -> Geometry:
    """The padding, as that of windows of one cell."""
    spatial = spatial_shape(shape)
    ones = (1,) * len(spatial)
    pairs = resolve_padding(check_border(padding, len(spatial)), spatial, ones, ones, ones)
    sizes = tuple(n + before + after for n, (before, after) in zip(spatial, pairs, strict=True))
    return Geometry(Windows(ones, ones, ones, sizes), pairs, (0,) * len(spatial))


class Pad(Layer):
    """Pad the spatial axes of ``(N, C, *S)`` with a constant; see `pad_constant`.

    Parameters
    ----------
    padding : int, sequence of int, sequence of (int, int)
        A sequence has one entry for each spatial axis of the input: cells on both sides, or ``(before, after)``.
    value : float
        The value of the added cells.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("padding", ...), ("value", 0.0))

    def __init__(self, padding: Padding, value: float = 0.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        padding = checks.listed(padding)
        self.padding = check_border(padding, len(padding) if checks.is_sequence(padding) else 1)
        self.value: float = float(checks.number("value", value, infinite=True, nan=True))

    def _output_shape(self, shape: Shape) -> Shape:
        return (*shape[:2], *_border(shape, self.padding).windows.count)

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return pad_constant(x, self.padding, self.value, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        return pad_constant_backward(dy, shape, self.padding, xp=self.backend.xp)
