"""The gated linear unit: half of the values, times the sigmoids of the other half.

Along an axis, with the input split into halves ``a`` and ``b``::

    y = a * s                      with s = 1 / (1 + exp(-b))
    da = dy * s                    db = dy * a * s * (1 - s)

Source: Y. Dauphin et al., "Language modeling with gated convolutional networks", 2017.
"""

from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_same_dtype, require_shape
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from .sigmoids import sigmoid


@without_graph
def glu(x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """``a * sigmoid(b)`` of the first half ``a`` and the second half ``b`` of ``x`` along an axis, which must be even.

    Raises
    ------
    ValueError, TypeError
        For an axis of odd size, or that ``x`` does not have.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    a, b = _halves(x, _halved(tuple(x.shape), axis), axis)
    return a * sigmoid(b, xp=xp)


@without_graph
def glu_backward(dy: Array, x: Array, *, axis: int = -1, xp: Namespace | None = None) -> Array:
    """Gradient of `glu`, of the shape of ``x``, for ``dy`` of the shape of its output."""
    xp = namespace(xp, dy=dy, input=x)
    require_same_dtype(dy=dy, input=x)
    shape = _halved(tuple(x.shape), axis)
    require_shape(dy, shape, "dy")
    a, b = _halves(x, shape, axis)
    s = sigmoid(b, xp=xp)
    return operations_of(xp).concat([dy * s, dy * (a * (s * (1.0 - s)))], axis % x.ndim)


def _halved(shape: Shape, axis: int) -> Shape:
    """The shape of the output."""
    axis = checks.integer("axis", axis)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} is out of range for an input of shape {shape}")
    if shape[axis] % 2:
        raise ValueError(f"input must have an even size along axis {axis}, got shape {shape}")
    axis %= len(shape)
    return (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])


def _halves(x: Array, half: Shape, axis: int) -> tuple[Array, Array]:
    axis %= x.ndim
    before = (slice(None),) * axis
    return x[(*before, slice(0, half[axis]), ...)], x[(*before, slice(half[axis], None), ...)]


class GLU(Layer):
    """Gated linear unit along ``axis``; see `glu`.

    Parameters
    ----------
    axis : int
        -1, the last one, unless given, as in PyTorch; 1 are the channels.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("axis", -1),)

    def __init__(self, axis: int = -1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.axis = checks.integer("axis", axis)

    def _output_shape(self, shape: Shape) -> Shape:
        return _halved(shape, self.axis)

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(x)
        return glu(x, axis=self.axis, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        return glu_backward(dy, x, axis=self.axis, xp=self.backend.xp)
