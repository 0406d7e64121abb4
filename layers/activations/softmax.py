"""Softmax, its logarithm, and softmin, the softmax of ``-x``, along an axis.

All subtract the maximum first, so that no exponential overflows. If the maximum is infinite, the result is the limit:
infinite entries have equal probabilities, all others 0. Minus infinity has probability 0; if all entries are minus
infinity, the result is NaN, as in PyTorch.

Source: C. Bishop, "Pattern recognition and machine learning", 2006, eq. 4.62.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.memory_order import inverse
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace, require_float, require_same_dtype, require_shape
from ..core.axis_order import memory_axes
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


@without_graph
def softmax(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``exp(x - max) / sum(exp(x - max))`` along an axis."""
    xp = namespace(xp, input=x)
    axis = _checked_axis(x, axis)
    prepared = _prepared(False, x, axis, xp)
    if prepared is not None:
        return prepared.forward(x)
    e = xp.exp(below_largest(x, xp.max(x, axis=axis, keepdims=True), xp))
    return e / xp.sum(e, axis=axis, keepdims=True)


@without_graph
def softmax_backward(dy: Array, y: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``dx = y * (dy - sum(dy * y))`` along the axis, from the output."""
    xp = namespace(xp, dy=dy, y=y)
    require_same_dtype(dy=dy, y=y)
    require_shape(y, tuple(dy.shape), "y")
    axis = _checked_axis(y, axis)
    prepared = _prepared(False, y, axis, xp)
    if prepared is not None:
        return prepared.backward(dy, y)
    return y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))


@without_graph
def log_softmax(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``(x - max) - log(sum(exp(x - max)))`` along an axis."""
    xp = namespace(xp, input=x)
    axis = _checked_axis(x, axis)
    prepared = _prepared(True, x, axis, xp)
    if prepared is not None:
        return prepared.forward(x)
    shifted = below_largest(x, xp.max(x, axis=axis, keepdims=True), xp)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@without_graph
def log_softmax_backward(dy: Array, y: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``dx = dy - exp(y) * sum(dy)`` along the axis, from the output."""
    xp = namespace(xp, dy=dy, y=y)
    require_same_dtype(dy=dy, y=y)
    require_shape(y, tuple(dy.shape), "y")
    axis = _checked_axis(y, axis)
    prepared = _prepared(True, y, axis, xp)
    if prepared is not None:
        return prepared.backward(dy, y)
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)


@without_graph
def softmin(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``exp(min - x) / sum(exp(min - x))`` along an axis: `softmax` of ``-x``."""
    xp = namespace(xp, input=x)
    require_float(x)
    return softmax(-x, axis=axis, xp=xp)


@without_graph
def softmin_backward(dy: Array, y: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``dx = y * (sum(dy * y) - dy)`` along the axis, from the output."""
    return -softmax_backward(dy, y, axis=axis, xp=xp)


def _prepared(is_log: bool, x: Array, axis: int, xp: Namespace) -> Any:
    """An engine's softmax along the last axis, or None."""
    return operations_of(xp).prepare("softmax", is_log, dtype_name(x.dtype)) if axis % x.ndim == x.ndim - 1 else None


def below_largest(x: Array, largest: Array, xp: Namespace) -> Array:
    """``x - largest``, and 0 where both are infinite."""
    return operations_of(xp).subtract_largest(x, largest)


def _checked_axis(x: Array, axis: int) -> int:
    require_float(x)
    axis = checks.integer("axis", axis)
    require_axis(tuple(x.shape), axis)
    return axis


def require_axis(shape: Shape, axis: int) -> None:
    """Raise `ValueError` unless an input of that shape has the axis, with a value along it."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} is out of range for an input of shape {shape}")
    if shape[axis] == 0:
        raise ValueError(f"input must have a value along axis {axis}, got shape {shape}")


class _AlongAxis(Layer):
    function: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("axis", 1),)
    _saves_narrow = False

    def __init__(self, axis: int = 1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.axis = checks.integer("axis", axis)

    def _output_shape(self, shape: Shape) -> Shape:
        require_axis(shape, self.axis)
        return shape

    def _forward(self, x: Array) -> Array:
        xp = self.backend.xp
        _checked_axis(x, self.axis)
        axes = memory_axes(x, xp)
        axis = axes.index(self.axis % x.ndim)
        y = xp.permute_dims(type(self).function(xp.permute_dims(x, axes), axis=axis, xp=xp), inverse(axes))
        self.save_for_backward(y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (y,) = self.saved
        xp = self.backend.xp
        axes = memory_axes(y, xp)
        dy, y = (xp.permute_dims(each, axes) for each in (dy, y))
        dx = type(self).gradient(dy, y, axis=axes.index(self.axis % y.ndim), xp=xp)
        return xp.permute_dims(dx, inverse(axes))


class Softmax(_AlongAxis):
    """Softmax along ``axis``; see `softmax`. For training on classes use `CrossEntropy` on the logits instead.

    Parameters
    ----------
    axis : int
        1, the channels, unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(softmax)
    gradient = staticmethod(softmax_backward)


class LogSoftmax(_AlongAxis):
    """Logarithm of the softmax along ``axis``; see `log_softmax`.

    Parameters
    ----------
    axis : int
        1, the channels, unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(log_softmax)
    gradient = staticmethod(log_softmax_backward)


class Softmin(_AlongAxis):
    """Softmax of ``-x`` along ``axis``; see `softmin`.

    Parameters
    ----------
    axis : int
        1, the channels, unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(softmin)
    gradient = staticmethod(softmin_backward)
