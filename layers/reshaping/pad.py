"""Padding, with a constant or by continuing the input.

With ``inside`` the cells of ``y`` that hold ``x``::

    y[inside] = x, else value          dx = dy[inside]

The other modes copy cells of ``x`` into the borders, and add their gradients to those of these cells: see
`xpnn.layers.windows.borders`.
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
from ..windows.borders import MODES, extend, extend_backward, require_source
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


@without_graph
def pad_reflect(x: Array, padding: Padding, *, xp: Namespace | None = None) -> Array:
    """Pad the spatial axes of ``x (N, C, *S)`` with their mirror images: ``(N, C, *O)``; see `pad_constant`."""
    return _extended(x, padding, "reflect", xp)


@without_graph
def pad_reflect_backward(
    dy: Array, x_shape: tuple[int, ...], padding: Padding, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `pad_reflect` for ``dy (N, C, *O)``: ``(N, C, *S)``."""
    return _extended_backward(dy, x_shape, padding, "reflect", xp)


@without_graph
def pad_replicate(x: Array, padding: Padding, *, xp: Namespace | None = None) -> Array:
    """Pad the spatial axes of ``x (N, C, *S)`` with copies of their edges: ``(N, C, *O)``; see `pad_constant`."""
    return _extended(x, padding, "replicate", xp)


@without_graph
def pad_replicate_backward(
    dy: Array, x_shape: tuple[int, ...], padding: Padding, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `pad_replicate` for ``dy (N, C, *O)``: ``(N, C, *S)``."""
    return _extended_backward(dy, x_shape, padding, "replicate", xp)


@without_graph
def pad_circular(x: Array, padding: Padding, *, xp: Namespace | None = None) -> Array:
    """Pad the spatial axes of ``x (N, C, *S)`` with their other ends: ``(N, C, *O)``; see `pad_constant`."""
    return _extended(x, padding, "circular", xp)


@without_graph
def pad_circular_backward(
    dy: Array, x_shape: tuple[int, ...], padding: Padding, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `pad_circular` for ``dy (N, C, *O)``: ``(N, C, *S)``."""
    return _extended_backward(dy, x_shape, padding, "circular", xp)


def _extended(x: Array, padding: Padding, mode: str, xp: Namespace | None) -> Array:
    xp = namespace(xp, input=x)
    require_float(x)
    pairs = _continued(tuple(x.shape), padding, mode).padding
    return extend(x, pairs, mode, xp)


def _extended_backward(dy: Array, x_shape: tuple[int, ...], padding: Padding, mode: str, xp: Namespace | None) -> Array:
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    x_shape = checks.shape("x_shape", x_shape)
    geometry = _continued(x_shape, padding, mode)
    require_shape(dy, (*x_shape[:2], *geometry.windows.count), "dy")
    return extend_backward(dy, x_shape[2:], geometry.padding, mode, xp)


def _continued(shape: tuple[int, ...], padding: Padding, mode: str) -> Geometry:
    """The padding, after a check that the input has enough cells to copy."""
    geometry = _border(shape, padding)
    if mode != "constant":
        require_source(shape[2:], geometry.padding, mode)
    return geometry


def _border(shape: tuple[int, ...], padding: Padding) -> Geometry:
    """The padding, as that of windows of one cell."""
    spatial = spatial_shape(shape)
    ones = (1,) * len(spatial)
    pairs = resolve_padding(check_border(padding, len(spatial)), spatial, ones, ones, ones)
    sizes = tuple(n + before + after for n, (before, after) in zip(spatial, pairs, strict=True))
    return Geometry(Windows(ones, ones, ones, sizes), pairs, (0,) * len(spatial))


class Pad(Layer):
    """Pad the spatial axes of ``(N, C, *S)``; see `pad_constant`.

    Parameters
    ----------
    padding : int, sequence of int, sequence of (int, int)
        A sequence has one entry for each spatial axis of the input: cells on both sides, or ``(before, after)``.
    value : float
        The value of the added cells, with mode ``"constant"``.
    mode : {"constant", "reflect", "replicate", "circular"}
        ``"reflect"`` adds the mirror image of the input, ``"replicate"`` copies of its edge (ONNX: edge), and
        ``"circular"`` its other end (ONNX: wrap): see `xpnn.layers.windows.borders`.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From the constructor for arguments out of range; from `forward` for an input of too few cells to copy.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("padding", ...), ("value", 0.0), ("mode", "constant"))

    def __init__(
        self, padding: Padding, value: float = 0.0, mode: str = "constant", **placement: Unpack[Placement]
    ) -> None:
        super().__init__(**placement)
        padding = checks.listed(padding)
        self.padding = check_border(padding, len(padding) if checks.is_sequence(padding) else 1)
        self.value: float = float(checks.number("value", value, infinite=True, nan=True))
        self.mode = checks.choice("mode", mode, ("constant", *MODES))
        if self.mode != "constant" and self.value != 0.0:
            raise ValueError(f"value is for mode 'constant' only, got {value!r} with mode {mode!r}")

    def _output_shape(self, shape: Shape) -> Shape:
        return (*shape[:2], *_continued(shape, self.padding, self.mode).windows.count)

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        if self.mode == "constant":
            return pad_constant(x, self.padding, self.value, xp=self.backend.xp)
        return _extended(x, self.padding, self.mode, self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        if self.mode == "constant":
            return pad_constant_backward(dy, shape, self.padding, xp=self.backend.xp)
        return _extended_backward(dy, shape, self.padding, self.mode, self.backend.xp)
