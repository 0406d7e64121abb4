"""Sigmoids and other activations that saturate, the piecewise ones of MobileNetV3, and the sigmoid's logarithm.

===========  ===========================  ===============================================
layer        f(x)                         f'(x)
===========  ===========================  ===============================================
Sigmoid      1 / (1 + exp(-x))            y (1 - y)
LogSigmoid   -log(1 + exp(-x))            1 / (1 + exp(x))
Tanh         tanh(x)                      1 - y^2
Softsign     x / (1 + abs(x))             1 / (1 + abs(x))^2
HardSigmoid  clip(alpha x + beta, 0, 1)   alpha where alpha x + beta is in (0, 1), else 0
HardSwish    x clip(x / 6 + 1 / 2, 0, 1)  0 for x <= -3, 1 for x >= 3, else x / 3 + 1 / 2
===========  ===========================  ===============================================

Sources: A. Howard et al., "Searching for MobileNetV3", 2019, with PyTorch's constants (the hard ones); ONNX, operator
HardSigmoid, for its alpha and beta; J. Turian et al., 2009 (softsign).

For an infinite input the result is the limit; for NaN both the result and the gradient are NaN.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import at_least, clamp, keep_nan, zero
from ..core.placement import Placement
from .base import Activation, prepare, prepare_gradient

# Adding 1 to it changes nothing in either dtype.
_LARGE = 1e30
# Slope and value at 0 of PyTorch's hard sigmoid.
ALPHA, BETA = 1.0 / 6.0, 0.5


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
def log_sigmoid(x: Array, *, xp: Namespace | None = None) -> Array:
    """``-log(1 + exp(-x))``, as ``min(x, 0) - log(1 + exp(-|x|))``, so that nothing overflows."""
    xp = prepare(xp, input=x)
    return xp.where(x < 0.0, x, zero(x, xp)) - xp.log1p(xp.exp(-xp.abs(x)))


@without_graph
def log_sigmoid_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy / (1 + exp(x))``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    return dy * sigmoid(-x, xp=xp)


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
def hard_sigmoid(x: Array, *, alpha: float = ALPHA, beta: float = BETA, xp: Namespace | None = None) -> Array:
    """``clip(alpha x + beta, 0, 1)``, ``alpha > 0``."""
    xp, (alpha, beta) = prepare(xp, input=x), _checked_line(alpha, beta)
    if (alpha, beta) == (ALPHA, BETA):
        return clamp(x + 3.0, 0.0, 6.0, xp) * (1.0 / 6.0)
    return clamp(x * alpha + beta, 0.0, 1.0, xp) + 0.0


@without_graph
def hard_sigmoid_backward(
    dy: Array, x: Array, *, alpha: float = ALPHA, beta: float = BETA, xp: Namespace | None = None
) -> Array:
    """``dx = alpha dy`` where ``0 < alpha x + beta < 1``, else 0; by default inside ``(-3, 3)``."""
    xp, (alpha, beta) = prepare_gradient(xp, dy=dy, input=x), _checked_line(alpha, beta)
    inside = xp.logical_and(x > -beta / alpha, x < (1.0 - beta) / alpha)
    return keep_nan(xp.where(inside, dy * alpha, zero(dy, xp)), x, xp)


def _checked_line(alpha: float, beta: float) -> tuple[float, float]:
    return checks.number("alpha", alpha, above=0.0), checks.number("beta", beta)


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


class LogSigmoid(Activation):
    """Logarithm of the sigmoid; see `log_sigmoid`."""

    function = staticmethod(log_sigmoid)
    gradient = staticmethod(log_sigmoid_backward)


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
    """A line clipped to ``[0, 1]``; see `hard_sigmoid`.

    Parameters
    ----------
    alpha, beta : float
        Slope, above 0, and value at 0 of the line: 1/6 and 1/2 unless given, as in PyTorch.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(hard_sigmoid)
    gradient = staticmethod(hard_sigmoid_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("alpha", ALPHA), ("beta", BETA))

    def __init__(self, alpha: float = ALPHA, beta: float = BETA, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.alpha, self.beta = _checked_line(alpha, beta)


class HardSwish(Activation):
    """``x`` times its hard sigmoid; see `hard_swish`."""

    function = staticmethod(hard_swish)
    gradient = staticmethod(hard_swish_backward)
