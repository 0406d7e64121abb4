"""The error function, which the Array API standard does not have, from functions of the standard.

The series and the polynomial are those of `xpnn.common.erf_coefficients`. ``exp(-x^2)`` is computed as two factors:
that of the square of ``x`` rounded to sixteenths, which is exact, and that of the difference, which is small.

The relative error of `erfc` in float64 is below 1e-15 where the result is a normal number.
"""

from ...backends.without_autograd import without_graph
from ...common import erf_coefficients as known
from ...common.types import Array, Namespace
from ..core.elementwise import clamp
from .base import prepare


@without_graph
def erf(x: Array, *, xp: Namespace | None = None) -> Array:
    """``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to ``x``."""
    xp = prepare(xp, input=x)
    outer = 1.0 - _tail(xp.abs(x), xp)
    return xp.where(xp.abs(x) < known.NEAR, _series(x, xp), xp.where(x < 0.0, -outer, outer))


@without_graph
def erfc(x: Array, *, xp: Namespace | None = None) -> Array:
    """``1 - erf(x)``, without the cancellation for large ``x``."""
    xp = prepare(xp, input=x)
    tail = _tail(xp.abs(x), xp)
    return xp.where(xp.abs(x) < known.NEAR, 1.0 - _series(x, xp), xp.where(x < 0.0, 2.0 - tail, tail))


def _series(x: Array, xp: Namespace) -> Array:
    """``erf(x)`` for ``|x| < 1/2``; elsewhere the result is not used, and does not overflow."""
    near = clamp(x, -known.NEAR, known.NEAR, xp)
    return near * _polynomial(near * near, known.SERIES)


def _tail(x: Array, xp: Namespace) -> Array:
    """``erfc(x)`` for ``x >= 1/2``."""
    x = clamp(x, known.NEAR, known.FAR, xp)
    u = (x - 3.0) / (x + 3.0)
    q = _polynomial((u * 7.0 - 1.0) * (1.0 / 6.0), known.TAIL) / (x + 3.0)
    coarse = xp.round(x * 16.0) * 0.0625
    return xp.exp(-(coarse * coarse)) * xp.exp((coarse - x) * (coarse + x)) * q


def _polynomial(v: Array, coefficients: tuple[float, ...]) -> Array:
    value = v * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * v + coefficient
    return value
