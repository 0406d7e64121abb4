"""Sigmoids and other activations that saturate, and the piecewise ones of MobileNetV3.

===========  ==========================  ==========================================
layer        f(x)                        f'(x)
===========  ==========================  ==========================================
Sigmoid      1 / (1 + exp(-x))           y (1 - y)
Tanh         tanh(x)                     1 - y^2
Softsign     x / (1 + abs(x))            1 / (1 + abs(x))^2
HardSigmoid  clip(x / 6 + 1 / 2, 0, 1)   1 / 6 inside (-3, 3), else 0
HardSwish    x * HardSigmoid(x)          0 for x <= -3, 1 for x >= 3, else x / 3 + 1 / 2
===========  ==========================  ==========================================

Sources: A. Howard et al., "Searching for MobileNetV3", 2019, with PyTorch's constants (the hard ones); J. Turian et
al., 2009 (softsign).

For an infinite input the result is the limit; for NaN both the result and the gradient are NaN.
"""

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace
from ..core.elementwise import at_least, clamp, keep_nan, zero
from .base import Activation, prepare, prepare_gradient

# Adding 1 to it changes nothing in either dtype.
_LARGE = 1e30


@without_graph
def sigmoid(x: Array, *, xp: Namespace | None = None) -> Array:
    """``1 / (1 + exp(-x))``, with the exponential of a negative number only, so that nothing overflows."""
    xp = prepare(xp, input=x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))


@without_graph
def sigmoid_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy * y * (1 - y)``, from the output."""
    prepare_gradient(xp, dy=dy, y=y)
    return dy * (y * (1.0 - y))


@without_graph
def tanh(x: Array, *, xp: Namespace | None = None) -> Array:
    """Hyperbolic tangent."""
    return prepare(xp, input=x).tanh(x)


@without_graph
def tanh_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy * (1 - y^2)``, from the output."""
    prepare_gradient(xp, dy=dy, y=y)
    return dy * (1.0 - y * y)


@without_graph
def softsign(x: Array, *, xp: Namespace | None = None) -> Array:
    """``x / (1 + |x|)``."""
    xp = prepare(xp, input=x)
    near = clamp(x, -_LARGE, _LARGE, xp)
    return near / (1.0 + xp.abs(near))


@without_graph
def softsign_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy / (1 + |x|)^2``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    inverse = 1.0 / (1.0 + xp.abs(x))
    return dy * (inverse * inverse)


@without_graph
def hard_sigmoid(x: Array, *, xp: Namespace | None = None) -> Array:
    """``clip(x + 3, 0, 6) / 6``."""
    xp = prepare(xp, input=x)
    return clamp(x + 3.0, 0.0, 6.0, xp) * (1.0 / 6.0)


@without_graph
def hard_sigmoid_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy / 6`` inside ``(-3, 3)``, else 0."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    return keep_nan(xp.where(xp.abs(x) < 3.0, dy * (1.0 / 6.0), zero(dy, xp)), x, xp)


@without_graph
def hard_swish(x: Array, *, xp: Namespace | None = None) -> Array:
    """``x * clip(x + 3, 0, 6) / 6``."""
    xp = prepare(xp, input=x)
    return at_least(x, -3.0, xp) * (clamp(x + 3.0, 0.0, 6.0, xp) * (1.0 / 6.0))


@without_graph
def hard_swish_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = 0`` for ``x <= -3``, ``dy`` for ``x >= 3``, else ``dy * (x / 3 + 1 / 2)``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    slope = clamp(x, -3.0, 3.0, xp) * (1.0 / 3.0) + 0.5
    return xp.where(x >= 3.0, dy, xp.where(x <= -3.0, zero(dy, xp), dy * slope))


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``; see `sigmoid`."""

    function = staticmethod(sigmoid)
    gradient = staticmethod(sigmoid_backward)
    from_output = True


class Tanh(Activation):
    """Hyperbolic tangent; see `tanh`."""

    function = staticmethod(tanh)
    gradient = staticmethod(tanh_backward)
    from_output = True


class Softsign(Activation):
    """``x / (1 + |x|)``; see `softsign`."""

    function = staticmethod(softsign)
    gradient = staticmethod(softsign_backward)


class HardSigmoid(Activation):
    """A line clipped to ``[0, 1]``; see `hard_sigmoid`."""

    function = staticmethod(hard_sigmoid)
    gradient = staticmethod(hard_sigmoid_backward)


class HardSwish(Activation):
    """``x`` times its hard sigmoid; see `hard_swish`."""

    function = staticmethod(hard_swish)
    gradient = staticmethod(hard_swish_backward)
