"""Arithmetic and elementary functions of vectors, as Python operators that write instructions.

The functions are polynomials after a reduction of the argument, in both dtypes, so that they are vectors where the C
library has one number at a time. Their errors, in units in the last place of float32 and of float64, are tested:
`exp` and `expm1` 2, `log1p` and `sigmoid` 3, `tanh` 4, `erfc` 8. NaN stays NaN, and infinities have their limits.

Sources: J.-M. Muller, "Elementary functions", 2016, sections 5.2 (polynomials) and 11.2 (reduction); the polynomial of
`erfc` is that of `xpnn.common.erf_coefficients`.
"""

from decimal import Decimal, localcontext
from math import factorial, log
from typing import Any

from ....common.erf_coefficients import FAR, NEAR, SERIES, TAIL
from .lanes import Lanes

# 1 / log(2), and log(2) in two parts, the first of which has so few bits that its products with exponents are exact.
_PER_OCTAVE = 1.0 / log(2.0)
_OCTAVE_BITS = {32: 12, 64: 32}
# Terms of the series of exp on [-log(2) / 2, log(2) / 2], and of that of atanh on [0, 1/3], by the bits of a number.
_EXP_TERMS = {32: 7, 64: 13}
_ATANH_TERMS = {32: 9, 64: 17}
# Adding it and subtracting it again rounds to an integer; and bits of the fraction and bias of the exponent.
_ROUNDER = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}
_FRACTION, _BIAS = {32: 23, 64: 52}, {32: 127, 64: 1023}
# Beyond these exp is 0 or infinity.
_RANGE = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}


class Vector:
    """A vector of numbers; operators with numbers are with vectors of these."""

    def __init__(self, lanes: Lanes, value: Any) -> None:
        self.lanes, self.value = lanes, value

    def _other(self, other: "Vector | float") -> Any:
        return other.value if isinstance(other, Vector) else self.lanes.constant(other)

    def __add__(self, other: "Vector | float") -> "Vector":
        return Vector(self.lanes, self.lanes.add(self.value, self._other(other)))

    def __sub__(self, other: "Vector | float") -> "Vector":
        return Vector(self.lanes, self.lanes.subtract(self.value, self._other(other)))

    def __mul__(self, other: "Vector | float") -> "Vector":
        return Vector(self.lanes, self.lanes.multiply(self.value, self._other(other)))

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return Vector(self.lanes, self.lanes.builder.fdiv(self.value, self._other(other)))

    def __rsub__(self, other: float) -> "Vector":
        return Vector(self.lanes, self.lanes.subtract(self.lanes.constant(other), self.value))

    def __rtruediv__(self, other: float) -> "Vector":
        return Vector(self.lanes, self.lanes.builder.fdiv(self.lanes.constant(other), self.value))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Vector":
        return Vector(self.lanes, self.lanes.builder.fneg(self.value))

    def _compare(self, test: str, other: "Vector | float") -> Any:
        """Where the test is true; NaN is not."""
        return self.lanes.builder.fcmp_ordered(test, self.value, self._other(other))

    def __gt__(self, other: "Vector | float") -> Any:
        return self._compare(">", other)

    def __ge__(self, other: "Vector | float") -> Any:
        return self._compare(">=", other)

    def __lt__(self, other: "Vector | float") -> Any:
        return self._compare("<", other)

    def __le__(self, other: "Vector | float") -> Any:
        return self._compare("<=", other)

    def is_number(self) -> Any:
        """Where it is not NaN."""
        return self._compare("ord", self)

    def at_least(self, low: float) -> "Vector":
        """The larger of it and ``low``; NaN stays."""
        return where(self < low, low, self)

    def clamped(self, low: float, high: float) -> "Vector":
        """It, limited to ``[low, high]``; NaN stays."""
        return where(self > high, high, self.at_least(low))


def where(mask: Any, chosen: Vector | float, other: Vector | float) -> Vector:
    """``chosen`` where the mask is true, else ``other``; at least one of them is a vector."""
    one = chosen if isinstance(chosen, Vector) else other
    assert isinstance(one, Vector)
    return Vector(one.lanes, one.lanes.builder.select(mask, one._other(chosen), one._other(other)))


def magnitude(x: Vector) -> Vector:
    """The absolute value."""
    lanes, builder = x.lanes, x.lanes.builder
    bits = builder.bitcast(x.value, lanes.vector(lanes.whole))
    without_sign = builder.and_(bits, lanes.whole_constant((1 << (lanes.whole.width - 1)) - 1))
    return Vector(lanes, builder.bitcast(without_sign, lanes.kind))


def polynomial(x: Vector, coefficients: tuple[float, ...]) -> Vector:
    """By Horner's rule; the highest power is first."""
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _power_of_two(lanes: Lanes, exponent: Any) -> Vector:
    """2 to an integer, by the bits of the number."""
    bits = lanes.whole.width
    builder = lanes.builder
    shifted = builder.shl(
        builder.add(exponent, lanes.whole_constant(_BIAS[bits])), lanes.whole_constant(_FRACTION[bits])
    )
    return Vector(lanes, builder.bitcast(shifted, lanes.kind))


def _reduced(x: Vector) -> tuple[Vector, Vector, Any]:
    """``x = r + n log 2`` with ``|r|`` at most about half of ``log 2``, for ``x`` within the range: ``r``, ``n``."""
    bits = x.lanes.whole.width
    n = (x * _PER_OCTAVE + _ROUNDER[bits]) - _ROUNDER[bits]
    scale = 2.0 ** _OCTAVE_BITS[bits]
    coarse = round(log(2.0) * scale) / scale
    with localcontext(prec=60):
        rest = float(Decimal(2).ln() - Decimal(coarse))
    return (x - n * coarse) - n * rest, n, x.lanes.builder.fptosi(n.value, x.lanes.vector(x.lanes.whole))


def _halves(lanes: Lanes, n: Any) -> tuple[Vector, Vector]:
    """Two powers of two whose product is 2^n: also where the product is below the normal numbers."""
    half = lanes.builder.ashr(n, lanes.whole_constant(1))
    return _power_of_two(lanes, half), _power_of_two(lanes, lanes.builder.sub(n, half))


def exp(x: Vector) -> Vector:
    """The exponential function."""
    bits, (low, high) = x.lanes.whole.width, _RANGE[x.lanes.whole.width]
    # NaN has no exponent.
    inside = where(x.is_number(), x.clamped(low, high), 0.0)
    r, _, n = _reduced(inside)
    value = polynomial(r, tuple(1.0 / factorial(k) for k in range(_EXP_TERMS[bits], -1, -1)))
    a, b = _halves(x.lanes, n)
    return where(x.is_number(), value * a * b, x)


def expm1(x: Vector) -> Vector:
    """``exp(x) - 1`` without cancellation, for ``x <= 0``."""
    bits, low = x.lanes.whole.width, _RANGE[x.lanes.whole.width][0]
    inside = where(x.is_number(), x.clamped(low, 0.0), 0.0)
    r, _, n = _reduced(inside)
    tail = polynomial(r, tuple(1.0 / factorial(k) for k in range(_EXP_TERMS[bits] + 1, 0, -1)))
    a, b = _halves(x.lanes, n)
    scale = a * b
    # r * tail is exp(r) - 1; where n is 0 nothing else is added.
    return where(x.is_number(), r * tail * scale + (scale - 1.0), x)


def log1p(x: Vector) -> Vector:
    """``log(1 + x)`` for ``0 <= x <= 1``, as twice the inverse hyperbolic tangent of ``x / (2 + x)``."""
    s = x / (x + 2.0)
    terms = tuple(2.0 / (2 * k + 1) for k in range(_ATANH_TERMS[x.lanes.whole.width], -1, -1))
    return s * polynomial(s * s, terms)


def sigmoid(x: Vector) -> Vector:
    """``1 / (1 + exp(-x))``, with the exponential of a negative number only."""
    e = exp(-magnitude(x))
    return where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))


def tanh(x: Vector) -> Vector:
    """Hyperbolic tangent."""
    e = expm1(magnitude(x) * -2.0)
    value = -e / (e + 2.0)
    return where(x < 0.0, -value, where(x > 0.0, value, x))


def erfc(x: Vector) -> Vector:
    """``1 - erf(x)``."""
    near = x.clamped(-NEAR, NEAR)
    series = near * polynomial(near * near, SERIES)
    size = magnitude(x).clamped(NEAR, FAR)
    u = (size - 3.0) / (size + 3.0)
    q = polynomial((u * 7.0 - 1.0) * (1.0 / 6.0), TAIL) / (size + 3.0)
    rounder = _ROUNDER[x.lanes.whole.width]
    coarse = ((size * 16.0 + rounder) - rounder) * 0.0625
    outer = exp(-(coarse * coarse)) * exp((coarse - size) * (coarse + size)) * q
    return where(magnitude(x) < NEAR, 1.0 - series, where(x < 0.0, 2.0 - outer, outer))
