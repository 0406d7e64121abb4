"""Hardmax: 1 at the first maximum along an axis, 0 elsewhere; NaN counts as the maximum.

It is constant between ties, so its gradient is 0.

Source: ONNX, operator Hardmax.
"""

from typing import Any, ClassVar, Unpack

from array_api_compat import device

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_same_dtype, require_shape
from ..core.layer import Layer
from ..core.maximum import first_maximum
from ..core.output_shape import Shape
from ..core.placement import Placement
from .softmax import require_axis


@without_graph
def hardmax(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """1 at the first maximum of ``x`` along an axis, or at the first NaN; 0 elsewhere."""
    xp = namespace(xp, input=x)
    require_float(x)
    axis = _checked_axis(tuple(x.shape), axis)
    first = xp.expand_dims(first_maximum(x, xp, axis), axis=axis)
    places = xp.arange(x.shape[axis], dtype=first.dtype, device=device(x))
    ones = tuple(n if i == axis else 1 for i, n in enumerate(x.shape))
    return xp.astype(xp.reshape(places, ones) == first, x.dtype)


@without_graph
def hardmax_backward(dy: Array, y: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``dx = 0``."""
    xp = namespace(xp, dy=dy, y=y)
    require_same_dtype(dy=dy, y=y)
    require_shape(y, tuple(dy.shape), "y")
    _checked_axis(tuple(y.shape), axis)
    return xp.zeros_like(dy)


def _checked_axis(shape: Shape, axis: int) -> int:
    axis = checks.integer("axis", axis)
    require_axis(shape, axis)
    return axis % len(shape)


class Hardmax(Layer):
    """1 at the first maximum along ``axis``, 0 elsewhere; see `hardmax`.

    Parameters
    ----------
    axis : int
        -1, the last one, unless given, as in ONNX.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("axis", -1),)

    def __init__(self, axis: int = -1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.axis = checks.integer("axis", axis)

    def _output_shape(self, shape: Shape) -> Shape:
        require_axis(shape, self.axis)
        return shape

    def _forward(self, x: Array) -> Array:
        y = hardmax(x, axis=self.axis, xp=self.backend.xp)
        self.save_for_backward(y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (y,) = self.saved
        return hardmax_backward(dy, y, axis=self.axis, xp=self.backend.xp)
