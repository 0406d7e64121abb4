"""The error function, which the Array API standard does not have, from functions of the standard.

Near 0 ``erf`` is its Taylor series. Elsewhere ``erfc(x) = exp(-x^2) q(v) / (x + 3)`` for ``x >= 1/2``, where ``q`` is a
polynomial in ``v = (7 u - 1) / 6``, ``u = (x - 3) / (x + 3)``, which goes from -1 to 1 as ``x`` goes from 1/2 to
infinity. Its coefficients are those of the Chebyshev interpolant of ``exp(x^2) erfc(x) (x + 3)`` at 64 points, computed
with 60 digits and truncated where they are below 2e-17. ``exp(-x^2)`` is computed as two factors: that of the square of
``x`` rounded to sixteenths, which is exact, and that of the difference, which is small.

The relative error of `erfc` in float64 is below 1e-15 where the result is a normal number.
"""

from math import factorial, pi, sqrt

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace
from ..core.elementwise import clamp
from .base import prepare

_NEAR = 0.5
# erfc is 0 in float64 from here on.
_FAR = 30.0

# 2 / sqrt(pi) * (-1)^n / (n! (2n + 1)), highest power of x^2 first; the next one is below 2e-17 at x = 1/2.
_SERIES = tuple(2.0 / sqrt(pi) * (1.0, -1.0)[n % 2] / (factorial(n) * (2 * n + 1)) for n in range(11, -1, -1))

# q, highest power of v first.
_TAIL = (
    1.0385156848625515e-10,
    -2.976714047197926e-11,
    -1.2429471011437762e-09,
    -3.900054625217945e-11,
    9.106288412622764e-09,
    3.5659347723468817e-09,
    -5.9387617561080265e-08,
    -3.9936462837542005e-08,
    4.0843464428918565e-07,
    2.7801976897934924e-07,
    -3.1790388431884694e-06,
    -6.858062729764738e-07,
    2.7642784811204553e-05,
    -2.528629358207439e-05,
    -0.00023152726656230457,
    0.0007631143558469824,
    0.000575279902887478,
    -0.012338549339293858,
    0.0541319082496085,
    -0.15596654978029198,
    0.3460562090899474,
    -0.6277955952806215,
    0.9589962033754297,
)


@without_graph
def erf(x: Array, *, xp: Namespace | None = None) -> Array:
    """``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to ``x``."""
    xp = prepare(xp, input=x)
    outer = 1.0 - _tail(xp.abs(x), xp)
    return xp.where(xp.abs(x) < _NEAR, _series(x, xp), xp.where(x < 0.0, -outer, outer))


@without_graph
def erfc(x: Array, *, xp: Namespace | None = None) -> Array:
    """``1 - erf(x)``, without the cancellation for large ``x``."""
    xp = prepare(xp, input=x)
    tail = _tail(xp.abs(x), xp)
    return xp.where(xp.abs(x) < _NEAR, 1.0 - _series(x, xp), xp.where(x < 0.0, 2.0 - tail, tail))


def _series(x: Array, xp: Namespace) -> Array:
    """``erf(x)`` for ``|x| < 1/2``; elsewhere the result is not used, and does not overflow."""
    near = clamp(x, -_NEAR, _NEAR, xp)
    return near * _polynomial(near * near, _SERIES)


def _tail(x: Array, xp: Namespace) -> Array:
    """``erfc(x)`` for ``x >= 1/2``."""
    x = clamp(x, _NEAR, _FAR, xp)
    u = (x - 3.0) / (x + 3.0)
    q = _polynomial((u * 7.0 - 1.0) * (1.0 / 6.0), _TAIL) / (x + 3.0)
    coarse = xp.round(x * 16.0) * 0.0625
    return xp.exp(-(coarse * coarse)) * xp.exp((coarse - x) * (coarse + x)) * q


def _polynomial(v: Array, coefficients: tuple[float, ...]) -> Array:
    value = v * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * v + coefficient
    return value
