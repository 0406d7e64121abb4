"""Square roots and powers of float64 arrays; see `elementary` for what they are made of.

Source: T. J. Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik 18
(1971).
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from math import frexp, inf, ldexp, nan

from ...common.types import Array, Namespace
from .exponentials import exp, flush
from .logarithms import log_parts
from .tables import TINY, Tables

# A product with it, from which the difference to the product is subtracted, is the upper 26 bits of a number.
_SPLITTER = 2.0**27 + 1.0
# Larger finite numbers have the same root, and the square of its upper half could overflow.
_LARGEST_RADICAND = 2.0**1023 * (2.0 - 2.0**-24)
# From here on the square of the lower half of a root is a normal number.
_SMALLEST_RADICAND = 2.0**-900


def sqrt(x: Array, xp: Namespace) -> Array:
    """The library's root ``y``, corrected by its exact remainder: ``y + (x - y*y) / (y + y)``.

    Products of 26-bit halves are exact, and the remainder of a root that is wrong by a unit in the last place is a
    float64. So the sum rounds to the same number whichever of the neighbours a library returns.
    """
    normal, finite = x >= _SMALLEST_RADICAND, x < inf
    argument = xp.where(normal & finite, xp.minimum(x, _LARGEST_RADICAND), 1.0)
    root = xp.sqrt(argument)
    product = root * _SPLITTER
    high = product - (product - root)
    low = root - high
    rest = ((argument - high * high) - (high + high) * low) - low * low
    y = xp.where(normal, root + rest / (root + root), 0.0)
    y = xp.where(x > -_SMALLEST_RADICAND, y, nan)
    return xp.where(finite, y, x)


def whole_power(x: Array, p: int, xp: Namespace) -> Array:
    """``x**p`` by repeated squaring."""
    size = xp.abs(x)
    if p == 1:
        return flush(x, xp)
    lowest, highest, below, above = _power_range(p)
    base = xp.where(size < lowest, 1.0, xp.minimum(size, highest))
    y = base
    for bit in f"{abs(p):b}"[1:]:
        y = y * y
        y = y * base if bit == "1" else y
    y = xp.ones_like(y) / y if p < 0 else y
    y = xp.where(size < lowest, below, xp.where(size > highest, above, y))
    return xp.where(x <= -TINY, -y, y) if p % 2 else y


@lru_cache
def _power_range(p: int) -> tuple[float, float, float, float]:
    """The smallest and largest ``size`` whose power ``size**p`` is in range, and the results below and above them."""
    with localcontext() as context:
        context.prec = 30
        smallest, largest = ("-996", "1020") if p > 0 else ("-1020", "996")
        lowest, highest = (float(Decimal(2) ** (Decimal(end) / abs(p))) for end in (smallest, largest))
    return (lowest, highest, 0.0, inf) if p > 0 else (lowest, highest, inf, 0.0)


def real_power(x: Array, p: float, whole: bool, odd: bool, xp: Namespace, tables: Tables) -> Array:
    """``e**(p log x)`` with ``p log x`` in two parts: the product of the leading 26 bits of each is exact."""
    size = xp.abs(x) if whole else x
    normal, finite = size >= TINY, size < inf
    high, r, low = log_parts(xp.where(normal & finite, size, 1.0), xp, tables)
    mantissa, exponent = frexp(p)
    leading = ldexp(round(mantissa * 2.0**26), exponent - 26)
    large, small = high * leading, high * (p - leading) + (r + low) * p
    product = large + small
    # If the product overflows `exp`, its rounding error may be large, and has no meaning.
    rounding_error = xp.minimum(xp.maximum((large - product) + small, -(2.0**-40)), 2.0**-40)
    y = exp(product, xp, tables, rounding_error)
    y = xp.where(finite, y, inf if p > 0 else 0.0)
    y = xp.where(normal, y, 0.0 if p > 0 else inf)
    y = xp.where(size > -TINY, y, nan)
    return xp.where(x <= -TINY, -y, y) if odd else y
