"""Logarithms of float64 arrays; see `elementary` for what they are made of.

``x = 2**e * (j / 256) * (1 + r)`` with a whole number ``j`` from 256 to 512: ``log(j / 256)`` is a table entry, and
``log(1 + r)`` a Taylor polynomial.

Source: P. T. P. Tang, "Table-driven implementation of the logarithm function in IEEE floating-point arithmetic", ACM
Transactions on Mathematical Software 16 (1990) 378-400.
"""

from math import inf, nan

from ...common.types import Array, Namespace
from .exponentials import flush
from .tables import LOG2_HIGH, LOG2_LOW, LOWEST, TINY, Tables


def log(x: Array, xp: Namespace, tables: Tables) -> Array:
    """Natural logarithm."""
    normal, finite = x >= TINY, x < inf
    high, r, low = log_parts(xp.where(normal & finite, x, 1.0), xp, tables)
    y = xp.where(normal, high + (r + low), -inf)
    y = xp.where(x > -TINY, y, nan)
    return xp.where(finite, y, x)


def log1p(x: Array, xp: Namespace, tables: Tables) -> Array:
    """``log(1 + x)``."""
    x = flush(x, xp)
    inside, finite = x > -1.0, x < inf
    argument = xp.where(inside & finite, x, 0.0)
    shifted = argument + 1.0
    high, r, low = log_parts(shifted, xp, tables, argument - (shifted - 1.0))
    y = xp.where(inside, high + (r + low), -inf)
    y = xp.where(x >= -1.0, y, nan)
    return xp.where(finite, y, x)


def log_parts(x: Array, xp: Namespace, tables: Tables, rest: Array | None = None) -> tuple[Array, Array, Array]:
    """``log(x + rest)`` as a sum of three parts, for ``2**-1000 <= x < inf`` and ``|rest| <= x * 2**-53``.

    The first part is a multiple of 2**-16. The first and the last are 0 near 1: just below 1, ``j`` is 512, and its
    logarithm and that of the exponent cancel exactly.
    """
    binade = xp.searchsorted(tables.binades, x, side="right")
    scale = xp.take(tables.to_cell, binade)
    scaled = x * scale
    cell = xp.round(scaled)
    r = scaled - cell
    r = r if rest is None else r + rest * scale
    entry = xp.astype(cell, xp.int64)
    r = r * xp.take(tables.inverse, entry)
    exponent = xp.astype(binade, xp.float64) + (LOWEST - 1.0)
    high = exponent * LOG2_HIGH + xp.take(tables.log_high, entry)
    low = exponent * LOG2_LOW + xp.take(tables.log_low, entry)
    series = r * (-1.0 / 6.0) + 1.0 / 5.0
    for coefficient in (-1.0 / 4.0, 1.0 / 3.0, -1.0 / 2.0):
        series = series * r + coefficient
    return high, r, low + r * r * series
