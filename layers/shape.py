"""Layers that rearrange: flatten, reshape, pad with a constant, repeat cells. The gradient takes the way back::

Flatten, Reshape    y = x in another shape            dx = dy in the old one
Pad                 y = value around x                dx = dy without its border
Upsample            y[..., o] = x[..., o // s]        dx[..., i] = sum over o with o // s = i of  dy[..., o]
"""

from math import prod
from typing import Any, ClassVar, Unpack

from ..backends.contractions.windows import Windows
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace
from .core.arrays import channels_first, channels_last, namespace, pad, require_float, require_shape, unpad
from .core.geometry import Geometry, Padding, Size, check_border, resolve_padding
from .core.layer import Layer
from .core.placement import Placement
from .summary import Shape


@without_graph
def pad_constant(x: Array, padding: Padding, value: float = 0.0, *, xp: Namespace | None = None) -> Array:
    """Put ``value`` around the spatial axes of ``x (N, C, *S)``.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis.
    padding : int, sequence of int, sequence of (int, int)
        Cells before and after each axis: the same for all, one per axis, or ``(before, after)`` pairs.
    value : float
        What the new cells hold.

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
    """Gradient of `pad_constant` for ``dy (N, C, *O)``: the cells of ``dy`` that the input's went to."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    x_shape = checks.shape("x_shape", x_shape)
    geometry = _border(x_shape, padding)
    require_shape(dy, (*x_shape[:2], *geometry.windows.count), "dy")
    return channels_first(unpad(channels_last(dy, xp), geometry, x_shape[2:]), xp)


def _border(shape: tuple[int, ...], padding: Padding) -> Geometry:
    """Padding for windows of one cell."""
    spatial = _spatial(shape)
    ones = (1,) * len(spatial)
    pairs = resolve_padding(check_border(padding, len(spatial)), spatial, ones, ones, ones)
    sizes = tuple(n + before + after for n, (before, after) in zip(spatial, pairs, strict=True))
    return Geometry(Windows(ones, ones, ones, sizes), pairs, (0,) * len(spatial))


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3:
        raise ValueError(f"input needs shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    return shape[2:]


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
    scale = checks.per_axis("scale_factor", scale_factor, len(_spatial(tuple(x.shape))))
    cells = channels_last(x, xp)
    for axis, times in enumerate(scale):
        cells = xp.repeat(cells, times, axis=axis + 1)
    return channels_first(cells, xp)


@without_graph
def upsample_nearest_backward(dy: Array, scale_factor: Size, *, xp: Namespace | None = None) -> Array:
    """Gradient of `upsample_nearest` for ``dy (N, C, *(S * scale))``: the sum over the copies of each cell."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    spatial = _spatial(tuple(dy.shape))
    scale = checks.per_axis("scale_factor", scale_factor, len(spatial))
    if any(n % s for n, s in zip(spatial, scale, strict=True)):
        raise ValueError(f"dy has shape {tuple(dy.shape)}, its spatial axes expected to be multiples of {scale}")
    cells = channels_last(dy, xp)
    count = tuple(n // s for n, s in zip(spatial, scale, strict=True))
    first, *others = Windows(scale, scale, (1,) * len(scale), count).slices()
    dx = cells[first]
    for index in others:
        dx = dx + cells[index]
    return channels_first(dx, xp)


class Flatten(Layer):
    """Join axes in row-major order: all but the first, unless told otherwise: ``(N, ...)`` to ``(N, product)``.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to join; negative numbers count from the end.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward` for an input without these axes. An input ``(N,)`` is taken and becomes ``(N, 1)``.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("start_dim", 1), ("end_dim", -1))

    def __init__(self, start_dim: int = 1, end_dim: int = -1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.start_dim = checks.integer("start_dim", start_dim)
        self.end_dim = checks.integer("end_dim", end_dim)

    def _output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ValueError("the input needs a batch axis, got a 0-d array")
        start, end = (axis + len(shape) if axis < 0 else axis for axis in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < len(shape) and (start, end) != (len(shape), len(shape) - 1):
            raise ValueError(f"there are no axes from {self.start_dim} to {self.end_dim} in an input of shape {shape}")
        return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return self.backend.xp.reshape(x, self._output_shape(tuple(x.shape)))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        return self.backend.xp.reshape(dy, shape)


class Reshape(Layer):
    """``(N, ...)`` to ``(N, *shape)``, in row-major order.

    Parameters
    ----------
    *shape : int
        Of a sample; one of them may be -1, which takes what the others leave.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For sizes out of range, at once; for an input of another size, from `forward`.
    """

    def __init__(self, *shape: int, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        if not all(checks.is_integer(n) and (n >= 1 or n == -1) for n in shape) or shape.count(-1) > 1:
            raise ValueError(
                f"shape must be the sizes of a sample, integers >= 1 and at most one -1, got {checks.shown(shape)}"
            )
        self.shape = tuple(int(n) for n in shape)

    def _output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ValueError("the input needs a batch axis, got a 0-d array")
        size, known = prod(shape[1:]), prod(n for n in self.shape if n != -1)
        if size % known if -1 in self.shape else size != known:
            raise ValueError(f"a sample of shape {shape[1:]} has {size} values, which {self.shape} does not fit")
        return (shape[0], *(size // known if n == -1 else n for n in self.shape))

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return self.backend.xp.reshape(x, self._output_shape(tuple(x.shape)))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        return self.backend.xp.reshape(dy, shape)

    def __repr__(self) -> str:
        return f"Reshape({', '.join(map(str, self.shape))})"


class Pad(Layer):
    """Put a constant around the spatial axes of ``(N, C, *S)``; see `pad_constant`.

    Parameters
    ----------
    padding : int, sequence of int, sequence of (int, int)
        A sequence has one entry for each spatial axis of the input: cells on both sides, or ``(before, after)``.
    value : float
        What the new cells hold.
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
        spatial = _spatial(shape)
        scale = checks.per_axis("scale_factor", self.scale_factor, len(spatial))
        return (*shape[:2], *(n * s for n, s in zip(spatial, scale, strict=True)))

    def _forward(self, x: Array) -> Array:
        return upsample_nearest(x, self.scale_factor, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return upsample_nearest_backward(dy, self.scale_factor, xp=self.backend.xp)
