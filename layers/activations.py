"""Activation functions: each a pair of functions, forward and backward, in one table.

An elementwise activation is ``y = f(x)``, ``dx = dy * f'(x)``. Its backward takes the input and the output, whichever
its formula is simpler in. A layer of the table keeps only what its backward reads.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from ..backends.types import Array, Namespace
from .arrays import namespace, require_float, require_same_dtype, zero
from .base import Layer
from .geometry import is_integer
from .placement import Placement


def relu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``max(x, 0)``; NaN stays NaN, and -0 becomes 0."""
    xp = namespace(xp, x)
    require_float(x)
    return xp.where(x <= 0.0, zero(x, xp), x)


def relu_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where the output ``y`` is above 0, and 0 elsewhere: the slope at 0 is 0."""
    xp = namespace(xp, dy, y)
    require_same_dtype(dy=dy, y=y)
    return xp.where(y <= 0.0, zero(dy, xp), dy)


def sigmoid(x: Array, *, xp: Namespace | None = None) -> Array:
    """``1 / (1 + exp(-x))``, with the exponential of a negative number only, so that nothing overflows."""
    xp = namespace(xp, x)
    require_float(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))


def sigmoid_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy * y * (1 - y)``, from the output."""
    require_same_dtype(dy=dy, y=y)
    return dy * y * (1.0 - y)


def tanh(x: Array, *, xp: Namespace | None = None) -> Array:
    """Hyperbolic tangent."""
    xp = namespace(xp, x)
    require_float(x)
    return xp.tanh(x)


def tanh_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy * (1 - y^2)``, from the output."""
    require_same_dtype(dy=dy, y=y)
    return dy * (1.0 - y * y)


def softmax(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``exp(x - max) / sum(exp(x - max))`` along an axis."""
    xp = namespace(xp, x)
    _check_axis(x, axis)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


def softmax_backward(dy: Array, y: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``dx = y * (dy - sum(dy * y))`` along the axis, from the output."""
    xp = namespace(xp, dy, y)
    require_same_dtype(dy=dy, y=y)
    return y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))


def log_softmax(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``(x - max) - log(sum(exp(x - max)))`` along an axis."""
    xp = namespace(xp, x)
    _check_axis(x, axis)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _check_axis(x: Array, axis: int) -> None:
    require_float(x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is out of range for an input of shape {tuple(x.shape)}")
    if x.shape[axis] == 0:
        raise ValueError(f"axis {axis} of an input of shape {tuple(x.shape)} is empty: there is nothing to compare")


class Activation(Layer):
    """Base of elementwise activations whose gradient is written in terms of the output."""

    function: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]

    def _forward(self, x: Array) -> Array:
        y = type(self).function(x, xp=self.backend.xp)
        self._save(y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (y,) = self._saved
        return type(self).gradient(dy, y, xp=self.backend.xp)


class ReLU(Activation):
    """``max(x, 0)``; see `relu`."""

    function = staticmethod(relu)
    gradient = staticmethod(relu_backward)


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``; see `sigmoid`."""

    function = staticmethod(sigmoid)
    gradient = staticmethod(sigmoid_backward)


class Tanh(Activation):
    """Hyperbolic tangent; see `tanh`."""

    function = staticmethod(tanh)
    gradient = staticmethod(tanh_backward)


class Softmax(Layer):
    """Softmax along ``axis``; see `softmax`. For training on classes use `CrossEntropy` on the logits instead.

    Parameters
    ----------
    axis : int
        1, the channels, unless given.
    **placement
        See `xpnn.layers.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("axis", 1),)

    def __init__(self, axis: int = 1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        if not is_integer(axis):
            raise ValueError(f"axis takes an integer, got {axis!r}")
        self.axis = axis

    def _forward(self, x: Array) -> Array:
        y = softmax(x, axis=self.axis, xp=self.backend.xp)
        self._save(y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (y,) = self._saved
        return softmax_backward(dy, y, axis=self.axis, xp=self.backend.xp)
