"""Pixel shuffle: channels become pixels, and back.

With ``r = upscale_factor``, for ``x (N, C r^2, H, W)`` and ``y (N, C, H r, W r)``::

    y[n, c, h*r + i, w*r + j] = x[n, c*r^2 + i*r + j, h, w]

`PixelUnshuffle` is the inverse, and each the gradient of the other.

Source: W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
neural network", 2016. ONNX has it as DepthToSpace with mode CRD.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


@without_graph
def pixel_shuffle(x: Array, upscale_factor: int, *, xp: Namespace | None = None) -> Array:
    """``(N, C r^2, H, W)`` to ``(N, C, H r, W r)``, ``r = upscale_factor``.

    Raises
    ------
    ValueError, TypeError
        For an input of another form.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    shape = _shuffled(tuple(x.shape), upscale_factor)
    r, (n, _, h, w) = upscale_factor, x.shape
    split = xp.reshape(x, (n, shape[1], r, r, h, w))
    return xp.reshape(xp.permute_dims(split, (0, 1, 4, 2, 5, 3)), shape)


@without_graph
def pixel_shuffle_backward(dy: Array, upscale_factor: int, *, xp: Namespace | None = None) -> Array:
    """Gradient of `pixel_shuffle` for ``dy (N, C, H r, W r)``: `pixel_unshuffle` of it."""
    return pixel_unshuffle(dy, _checked("upscale_factor", upscale_factor), xp=xp)


@without_graph
def pixel_unshuffle(x: Array, downscale_factor: int, *, xp: Namespace | None = None) -> Array:
    """``(N, C, H r, W r)`` to ``(N, C r^2, H, W)``, ``r = downscale_factor``: the inverse of `pixel_shuffle`.

    Raises
    ------
    ValueError, TypeError
        For an input of another form.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    shape = _unshuffled(tuple(x.shape), downscale_factor)
    r, (n, c, _, _) = downscale_factor, x.shape
    split = xp.reshape(x, (n, c, shape[2], r, shape[3], r))
    return xp.reshape(xp.permute_dims(split, (0, 1, 3, 5, 2, 4)), shape)


@without_graph
def pixel_unshuffle_backward(dy: Array, downscale_factor: int, *, xp: Namespace | None = None) -> Array:
    """Gradient of `pixel_unshuffle` for ``dy (N, C r^2, H, W)``: `pixel_shuffle` of it."""
    return pixel_shuffle(dy, _checked("downscale_factor", downscale_factor), xp=xp)


def _checked(name: str, factor: int) -> int:
    return checks.integer(name, factor, 1)


def _shuffled(shape: Shape, factor: int) -> Shape:
    r = _checked("upscale_factor", factor)
    if len(shape) != 4 or shape[1] % (r * r):
        raise ValueError(f"input must have shape (N, C, H, W) with a multiple of {r * r} channels, got {shape}")
    return (shape[0], shape[1] // (r * r), shape[2] * r, shape[3] * r)


def _unshuffled(shape: Shape, factor: int) -> Shape:
    r = _checked("downscale_factor", factor)
    if len(shape) != 4 or shape[2] % r or shape[3] % r:
        raise ValueError(f"input must have shape (N, C, H, W) with H and W multiples of {r}, got {shape}")
    return (shape[0], shape[1] * r * r, shape[2] // r, shape[3] // r)


class PixelShuffle(Layer):
    """Channels become pixels; see `pixel_shuffle`.

    Parameters
    ----------
    upscale_factor : int
        At least 1.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("upscale_factor", ...),)

    def __init__(self, upscale_factor: int, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.upscale_factor = _checked("upscale_factor", upscale_factor)

    def _output_shape(self, shape: Shape) -> Shape:
        return _shuffled(shape, self.upscale_factor)

    def _forward(self, x: Array) -> Array:
        return pixel_shuffle(x, self.upscale_factor, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return pixel_shuffle_backward(dy, self.upscale_factor, xp=self.backend.xp)


class PixelUnshuffle(Layer):
    """Pixels become channels; see `pixel_unshuffle`.

    Parameters
    ----------
    downscale_factor : int
        At least 1.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("downscale_factor", ...),)

    def __init__(self, downscale_factor: int, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.downscale_factor = _checked("downscale_factor", downscale_factor)

    def _output_shape(self, shape: Shape) -> Shape:
        return _unshuffled(shape, self.downscale_factor)

    def _forward(self, x: Array) -> Array:
        return pixel_unshuffle(x, self.downscale_factor, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return pixel_unshuffle_backward(dy, self.downscale_factor, xp=self.backend.xp)
