"""Smooth approximations of the ReLU: softplus, SiLU, Mish and GELU.

========  ==================================================  ====================================================
layer     f(x)                                                f'(x)
========  ==================================================  ====================================================
Softplus  log(1 + exp(beta x)) / beta; x past the threshold   sigmoid(beta x); 1 past the threshold
SiLU      x s, s = sigmoid(x)                                 s (1 + x (1 - s))
Mish      x t, t = tanh(softplus(x))                          t + x s (1 - t^2)
GELU      x P(x), P the normal distribution function          P(x) + x exp(-x^2 / 2) / sqrt(2 pi)
GELU      x (1 + t) / 2, t = tanh(sqrt(2 / pi) *              (1 + t) / 2 + x (1 - t^2) / 2 * sqrt(2 / pi) *
(tanh)    (x + 0.044715 x^3))                                 (1 + 3 * 0.044715 x^2)
========  ==================================================  ====================================================

Sources: C. Dugas et al., 2001 (softplus); S. Elfwing et al., 2018 (SiLU); D. Misra, 2019 (Mish); D. Hendrycks and
K. Gimpel, "Gaussian error linear units", 2016.

All but the softplus are computed from ``x`` clamped to [-1000, 1000], or to -1000 and above if ``x`` is a factor.
Outside they are equal to their limits in either dtype, and this way nothing overflows or is infinity times 0.
"""

from math import pi, sqrt
from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import at_least, clamp, zero
from ..core.placement import Placement
from .base import Activation, prepare, prepare_gradient
from .erf import erfc
from .sigmoids import sigmoid

GELU_FORMS = ("none", "tanh")
_CUBIC = 0.044715
_ROOT = sqrt(2.0 / pi)
# Inputs are clamped to this; see above.
_LIMIT = 1000.0


@without_graph
def softplus(x: Array, *, beta: float = 1.0, threshold: float = 20.0, xp: Namespace | None = None) -> Array:
    """``log(1 + exp(beta x)) / beta``, and ``x`` where ``beta x > threshold``."""
    xp, (beta, threshold) = prepare(xp, input=x), _checked(beta, threshold)
    scaled = x * beta
    smooth = (_positive(scaled, xp) + xp.log1p(xp.exp(-xp.abs(scaled)))) * (1.0 / beta)
    return xp.where(scaled > threshold, x, smooth)


@without_graph
def softplus_backward(
    dy: Array, x: Array, *, beta: float = 1.0, threshold: float = 20.0, xp: Namespace | None = None
) -> Array:
    """``dx = sigmoid(beta x) dy``, and ``dy`` where ``beta x > threshold``."""
    xp, (beta, threshold) = prepare_gradient(xp, dy=dy, input=x), _checked(beta, threshold)
    scaled = x * beta
    return xp.where(scaled > threshold, dy, dy * sigmoid(scaled, xp=xp))


def _checked(beta: float, threshold: float) -> tuple[float, float]:
    return checks.number("beta", beta, above=0.0), checks.number("threshold", threshold)


@without_graph
def silu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``x * sigmoid(x)``."""
    xp = prepare(xp, input=x)
    x = at_least(x, -_LIMIT, xp)
    return x * sigmoid(x, xp=xp)


@without_graph
def silu_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = s (1 + x (1 - s)) dy`` with ``s = sigmoid(x)``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    x = clamp(x, -_LIMIT, _LIMIT, xp)
    s = sigmoid(x, xp=xp)
    return dy * (s * (1.0 + x * (1.0 - s)))


@without_graph
def mish(x: Array, *, xp: Namespace | None = None) -> Array:
    """``x * tanh(log(1 + exp(x)))``."""
    xp = prepare(xp, input=x)
    x = at_least(x, -_LIMIT, xp)
    return x * _mish_parts(x, xp)[0]


@without_graph
def mish_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = (t + x s (1 - t^2)) dy`` with ``s = sigmoid(x)``, ``t = tanh(softplus(x))``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    x = clamp(x, -_LIMIT, _LIMIT, xp)
    t, rest = _mish_parts(x, xp)
    return dy * (t + x * sigmoid(x, xp=xp) * rest)


def _mish_parts(x: Array, xp: Namespace) -> tuple[Array, Array]:
    """``t = tanh(log(1 + exp(x)))`` and ``1 - t^2``, as fractions in ``w = exp(-|x|)``.

    ``t = ((1 + e^x)^2 - 1) / ((1 + e^x)^2 + 1)``, multiplied out for either sign of x so that nothing cancels or
    overflows.
    """
    w = xp.exp(-xp.abs(x))
    right = x >= 0.0
    above = xp.where(right, 1.0 + 2.0 * w, w * (w + 2.0))
    excess = xp.where(right, 2.0 * w * w, xp.full_like(w, 2.0))
    below = above + excess
    t = above / below
    return t, excess * (2.0 * above + excess) / (below * below)


@without_graph
def gelu(x: Array, *, approximate: str = "none", xp: Namespace | None = None) -> Array:
    """``x`` times the normal distribution function of ``x``; with ``approximate="tanh"`` the formula with tanh."""
    xp = prepare(xp, input=x)
    x = at_least(x, -_LIMIT, xp)
    if checks.choice("approximate", approximate, GELU_FORMS) == "tanh":
        return x * ((1.0 + xp.tanh(_tanh_argument(xp.minimum(x, _LIMIT)))) * 0.5)
    return x * _normal_cdf(x, xp)


@without_graph
def gelu_backward(dy: Array, x: Array, *, approximate: str = "none", xp: Namespace | None = None) -> Array:
    """Gradient of `gelu`: the table at the top of this file."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    x = clamp(x, -_LIMIT, _LIMIT, xp)
    if checks.choice("approximate", approximate, GELU_FORMS) == "tanh":
        t = xp.tanh(_tanh_argument(x))
        slope = _ROOT * (1.0 + (3.0 * _CUBIC) * x * x)
        return dy * ((1.0 + t) * 0.5 + x * (1.0 - t * t) * 0.5 * slope)
    density = xp.exp(x * x * -0.5) * (1.0 / sqrt(2.0 * pi))
    return dy * (_normal_cdf(x, xp) + x * density)


def _tanh_argument(x: Array) -> Array:
    return (x + x * x * x * _CUBIC) * _ROOT


def _normal_cdf(x: Array, xp: Namespace) -> Array:
    return erfc(x * -sqrt(0.5), xp=xp) * 0.5


def _positive(x: Array, xp: Namespace) -> Array:
    return xp.where(x < 0.0, zero(x, xp), x)


class Softplus(Activation):
    """``log(1 + exp(beta x)) / beta``, ``beta > 0``; see `softplus`."""

    function = staticmethod(softplus)
    gradient = staticmethod(softplus_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("beta", 1.0), ("threshold", 20.0))

    def __init__(self, beta: float = 1.0, threshold: float = 20.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.beta, self.threshold = _checked(beta, threshold)


class SiLU(Activation):
    """``x * sigmoid(x)``; see `silu`."""

    function = staticmethod(silu)
    gradient = staticmethod(silu_backward)


class Mish(Activation):
    """``x * tanh(softplus(x))``; see `mish`."""

    function = staticmethod(mish)
    gradient = staticmethod(mish_backward)


class GELU(Activation):
    """Gaussian error linear unit; see `gelu`.

    Parameters
    ----------
    approximate : {"none", "tanh"}
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(gelu)
    gradient = staticmethod(gelu_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("approximate", "none"),)

    def __init__(self, approximate: str = "none", **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.approximate = checks.choice("approximate", approximate, GELU_FORMS)
