"""Exponential and hyperbolic functions of float64 arrays; see `elementary` for what they are made of.

``e**x = 2**(k/32) * e**r`` with ``k = round(x * 32 / log(2))``: the power of two is a table entry, and ``e**r`` is a
Taylor polynomial.

Source: P. T. P. Tang, "Table-driven implementation of the exponential function in IEEE floating-point arithmetic", ACM
Transactions on Mathematical Software 15 (1989) 144-157.
"""

from math import factorial, inf

from ...common.types import Array, Namespace
from .tables import LAST, STEP_HIGH, STEP_LOW, STEPS_PER_LOG2, TINY, Tables

# Coefficients of (e**r - 1) / r; the terms left out are below 2**-58.
_TAYLOR = tuple(1 / factorial(n) for n in range(6, 0, -1))


def flush(x: Array, xp: Namespace) -> Array:
    """``x`` with 0 for magnitudes below `TINY`."""
    return xp.where(xp.abs(x) < TINY, 0.0, x)


def exp(x: Array, xp: Namespace, tables: Tables, extra: Array | None = None) -> Array:
    """``e**(x + extra)`` for ``|extra| <= 2**-40``."""
    entry, r, series = _reduce(xp.minimum(xp.maximum(x, -720.0), 720.0), xp, extra)
    return xp.take(tables.power, entry) * (series * r + 1.0)


def expm1(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``e**x - 1``."""
    y = _exp_minus_one(flush(xp.minimum(xp.maximum(x, -40.0), 709.7), xp), xp, tables)
    return xp.where(x > 709.7, inf, y)


def tanh(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``(e**2x - 1) / (e**2x + 1)``."""
    clipped = flush(xp.minimum(xp.maximum(x, -20.0), 20.0), xp)
    y = _exp_minus_one(clipped + clipped, xp, tables)
    return y / (y + 2.0)


def sinh(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``(e**x - e**-x) / 2``."""
    size = xp.abs(x)
    y = _exp_minus_one(xp.where(size < TINY, 0.0, xp.minimum(size, 709.7)), xp, tables)
    y = xp.where(size > 709.7, inf, (y + y / (y + 1.0)) * 0.5)
    return xp.where(x <= -TINY, -y, y)


def cosh(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``(e**x + e**-x) / 2``."""
    y = exp(xp.abs(x), xp, tables)
    return (y + xp.ones_like(y) / y) * 0.5


def _exp_minus_one(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``e**x - 1`` for ``-720 <= x <= 709.7``, where no table entry is infinite."""
    entry, r, series = _reduce(x, xp)
    return xp.take(tables.power, entry) * (series * r) + xp.take(tables.power_m1, entry)


def _reduce(x: Array, xp: Namespace, extra: Array | None = None) -> tuple[Array, Array, Array]:
    """Index of 2**(k/32) in the tables, ``r = x - k log(2) / 32``, and ``(e**r - 1) / r``, for ``|x| <= 720``.

    A NaN stays in ``r``; its index is that of 1.
    """
    k = xp.round(x * STEPS_PER_LOG2)
    r = (x - k * STEP_HIGH) - k * STEP_LOW
    r = r if extra is None else r + extra
    series = r * _TAYLOR[0] + _TAYLOR[1]
    for coefficient in _TAYLOR[2:]:
        series = series * r + coefficient
    return xp.astype(xp.where(k == k, k, 0.0) + float(LAST), xp.int64), r, series
