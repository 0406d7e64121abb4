"""Elementary functions in float64 whose bits are the same on every backend.

IEEE-754 fixes ``+ - * /``, `round`, comparisons and casts, and every library keeps to that; `exp`, `log`, `tanh` differ
in the last bit from library to library, and so does PyTorch's `sqrt` on a CPU, which is only a start here. The
functions here are made of the fixed operations alone, one array operation at a time, so that no compiler can contract
``a * b + c``. What is left to differ are subnormal numbers, which a machine may flush to zero: so an argument below
2**-1000 counts as zero and a result below 2**-996 (about 1e-300) is zero, by comparisons that come out the same either
way. (Results that go as their argument, such as `tanh`'s near 0, follow the first rule.)

Exponents are found by `searchsorted` in the powers of two and undone by `take`: exact, and the standard has no `frexp`.
Arguments where a formula fails (NaN, infinities, outside the domain) are replaced before it and their results put in
after it, so that no library warns. The sign of zero is not kept.

References
----------
P. T. P. Tang, "Table-driven implementation of the exponential function in IEEE floating-point arithmetic", ACM
Transactions on Mathematical Software 15 (1989) 144-157; "... of the logarithm function ...", 16 (1990) 378-400.
T. J. Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik 18 (1971).
"""

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import lru_cache
from math import factorial, frexp, inf, isinf, ldexp, nan

from array_api_compat import device

from ...common.types import Array, Device, Namespace
from ..execution.blocks import concat_all
from .tables import HIGHEST_SCALE, LAST, LOG2_HIGH, LOG2_LOW, LOWEST, STEP_HIGH, STEP_LOW, STEPS_PER_LOG2, Tables

_TINY = 2.0**-1000
_EXP = tuple(1 / factorial(n) for n in range(6, 0, -1))  # (e**r - 1) / r; below 2**-58 is left out
_HALVE = 2.0**27 + 1.0  # times a number, and the difference taken away again, it leaves the upper 26 bits
_MOST = 2.0**1023 * (2.0 - 2.0**-24)  # the last numbers before infinity have its root
_LEAST = 2.0**-900  # the square of the lower half of a root is still normal


class Elementary:
    """Elementary functions of float64 arrays, from exact and IEEE-fixed operations.

    Parameters
    ----------
    xp : namespace
        An Array API namespace. Arrays may have any shape and live on any of its devices.
    chunk : int, optional
        On a CPU, work through larger arrays in pieces of this size, whose temporaries stay in the cache. It changes
        the time and never a bit. 0, the default, takes arrays whole, as suits a GPU.
    """

    def __init__(self, xp: Namespace, chunk: int = 0) -> None:
        self.xp = xp
        self.chunk = chunk
        # Few, and found by ==: a device need not have a hash, and CuPy's has none.
        self._tables: list[tuple[Device, Tables]] = []

    def exp(self, x: Array) -> Array:
        """``e**x``; 0 below -690.4, inf above 709.77."""
        return self._flat(self._exp, x)

    def expm1(self, x: Array) -> Array:
        """``e**x - 1``, accurate relative to the result near 0."""
        return self._flat(self._expm1, x)

    def log(self, x: Array) -> Array:
        """Natural logarithm; -inf at 0 and NaN below."""
        return self._flat(self._log, x)

    def log1p(self, x: Array) -> Array:
        """``log(1 + x)``, accurate relative to the result near 0; -inf at -1 and NaN below."""
        return self._flat(self._log1p, x)

    def tanh(self, x: Array) -> Array:
        """``(e**2x - 1) / (e**2x + 1)``."""
        return self._flat(self._tanh, x)

    def sinh(self, x: Array) -> Array:
        """``(e**x - e**-x) / 2``; infinite where `exp` of the magnitude is."""
        return self._flat(self._sinh, x)

    def cosh(self, x: Array) -> Array:
        """``(e**x + e**-x) / 2``; infinite where `exp` of the magnitude is."""
        return self._flat(self._cosh, x)

    def sqrt(self, x: Array) -> Array:
        """Square root; NaN below 0, and 0 below 2**-900.

        Correctly rounded, but for roots that lie within 2**-52 units in the last place of the middle between two
        numbers: some four of all float64 mantissas. Of float32 values none is among them (all were tried).
        """
        return self._flat(self._sqrt, x)

    def pow(self, x: Array, p: float) -> Array:
        """``x**p`` for one real number ``p``, as IEEE's pow where ``x`` is 0 or inf or ``p`` is 0.

        Whole ``p`` up to 64 by repeated squaring, with results from 2**1020 on inf; 0.5 by `sqrt`; otherwise
        ``e**(p log x)``. A negative ``x``, -inf included, gives NaN unless ``p`` is whole.
        """
        infinite = isinstance(p, float) and isinf(p)
        whole = infinite or isinstance(p, int) or p.is_integer()
        if p == 0:
            return self.xp.ones_like(x)
        if p != p:
            return self.xp.where(x == 1.0, x, nan)
        if p == 0.5:
            return self.sqrt(x)
        if whole and abs(p) <= 64:
            return self._flat(lambda flat: self._whole_power(flat, int(p)), x)
        odd = whole and not infinite and int(p) % 2 == 1
        # From 2**63 on every base but 1 goes to 0 or inf: a larger exponent only overflows on the way.
        return self._flat(lambda flat: self._real_power(flat, float(max(-(2**64), min(p, 2**64))), whole, odd), x)

    def exponent_scale(self, m: Array) -> Array:
        """The smallest power of two strictly above ``m >= 0``; 1 where ``m`` is 0, NaN where it is NaN or inf.

        From 2**1023 on there is none, and the result is inf.
        """
        return self._flat(self._exponent_scale, m)

    def contraction_scale(self, m: Array) -> Array:
        """`exponent_scale` of at least 2**-400; NaN where that would be above 2**600."""
        xp, tables = self.xp, self._at(m)
        flat = xp.reshape(m, (-1,))
        scale = xp.take(tables.clamped, xp.searchsorted(tables.binades, flat, side="right"))
        return xp.reshape(xp.where(flat < HIGHEST_SCALE, scale, nan), m.shape)

    def _flat(self, function: Callable[[Array], Array], x: Array) -> Array:
        xp = self.xp
        flat = xp.reshape(x, (-1,))
        if 0 < self.chunk < flat.shape[0]:
            n = flat.shape[0]
            pieces = (flat[start : min(start + self.chunk, n)] for start in range(0, n, self.chunk))
            y = concat_all([function(piece) for piece in pieces], 0, xp)
        else:
            y = function(flat)
        return xp.reshape(y, x.shape)

    def _at(self, x: Array) -> Tables:
        where = device(x)
        for known, tables in self._tables:
            if known == where:
                return tables
        tables = Tables(self.xp, where)
        self._tables.append((where, tables))
        return tables

    def _flush(self, x: Array) -> Array:
        return self.xp.where(self.xp.abs(x) < _TINY, 0.0, x)

    def _reduce(self, x: Array, extra: Array | None = None) -> tuple[Array, Array, Array]:
        """Place of 2**(k/32) in the tables, ``r = x - k log(2) / 32``, and ``(e**r - 1) / r``, for ``|x| <= 720``.

        A NaN stays in ``r``; only the place, an integer, has to be something.
        """
        xp = self.xp
        k = xp.round(x * STEPS_PER_LOG2)
        r = (x - k * STEP_HIGH) - k * STEP_LOW
        r = r if extra is None else r + extra
        series = r * _EXP[0] + _EXP[1]
        for coefficient in _EXP[2:]:
            series = series * r + coefficient
        return xp.astype(xp.where(k == k, k, 0.0) + float(LAST), xp.int64), r, series

    def _exp(self, x: Array, extra: Array | None = None) -> Array:
        xp = self.xp
        place, r, series = self._reduce(xp.minimum(xp.maximum(x, -720.0), 720.0), extra)
        return xp.take(self._at(x).power, place) * (series * r + 1.0)

    def _exp_less_one(self, x: Array) -> Array:
        """``e**x - 1`` for ``-720 <= x <= 709.7``, where no table entry is infinite."""
        tables = self._at(x)
        place, r, series = self._reduce(x)
        return self.xp.take(tables.power, place) * (series * r) + self.xp.take(tables.power_m1, place)

    def _expm1(self, x: Array) -> Array:
        xp = self.xp
        y = self._exp_less_one(self._flush(xp.minimum(xp.maximum(x, -40.0), 709.7)))
        return xp.where(x > 709.7, inf, y)

    def _tanh(self, x: Array) -> Array:
        xp = self.xp
        clipped = self._flush(xp.minimum(xp.maximum(x, -20.0), 20.0))
        y = self._exp_less_one(clipped + clipped)
        return y / (y + 2.0)

    def _sinh(self, x: Array) -> Array:
        xp = self.xp
        size = xp.abs(x)
        y = self._exp_less_one(xp.where(size < _TINY, 0.0, xp.minimum(size, 709.7)))
        y = xp.where(size > 709.7, inf, (y + y / (y + 1.0)) * 0.5)
        return xp.where(x <= -_TINY, -y, y)

    def _cosh(self, x: Array) -> Array:
        y = self._exp(self.xp.abs(x))
        return (y + self.xp.ones_like(y) / y) * 0.5

    def _log_parts(self, x: Array, rest: Array | None = None) -> tuple[Array, Array, Array]:
        """``log(x + rest)`` for ``2**-1000 <= x < inf`` and ``|rest| <= x * 2**-53``, in three parts.

        The first is a multiple of 2**-16, and it and the last are 0 near 1: below 1 the cell is the one of 2 and
        its logarithm cancels against the exponent's, bit by bit.
        """
        xp, tables = self.xp, self._at(x)
        binade = xp.searchsorted(tables.binades, x, side="right")
        scale = xp.take(tables.to_cell, binade)
        scaled = x * scale
        cell = xp.round(scaled)
        r = scaled - cell
        r = r if rest is None else r + rest * scale
        place = xp.astype(cell, xp.int64)
        r = r * xp.take(tables.inverse, place)
        exponent = xp.astype(binade, xp.float64) + (LOWEST - 1.0)
        high = exponent * LOG2_HIGH + xp.take(tables.log_high, place)
        low = exponent * LOG2_LOW + xp.take(tables.log_low, place)
        series = r * (-1.0 / 6.0) + 1.0 / 5.0
        for coefficient in (-1.0 / 4.0, 1.0 / 3.0, -1.0 / 2.0):
            series = series * r + coefficient
        return high, r, low + r * r * series

    def _log(self, x: Array) -> Array:
        xp = self.xp
        normal, finite = x >= _TINY, x < inf
        high, r, low = self._log_parts(xp.where(normal & finite, x, 1.0))
        y = xp.where(normal, high + (r + low), -inf)
        y = xp.where(x > -_TINY, y, nan)
        return xp.where(finite, y, x)

    def _log1p(self, x: Array) -> Array:
        xp = self.xp
        x = self._flush(x)
        inside, finite = x > -1.0, x < inf
        argument = xp.where(inside & finite, x, 0.0)
        shifted = argument + 1.0
        high, r, low = self._log_parts(shifted, argument - (shifted - 1.0))
        y = xp.where(inside, high + (r + low), -inf)
        y = xp.where(x >= -1.0, y, nan)
        return xp.where(finite, y, x)

    def _sqrt(self, x: Array) -> Array:
        """The library's root ``y``, put right by its exact remainder: ``y + (x - y*y) / (y + y)``.

        Halves of 26 bits have exact products, and the remainder of a root that is wrong by a unit in the last place is
        a float64. So whichever of the neighbours a library gives, the sum rounds to the same number.
        """
        xp = self.xp
        normal, finite = x >= _LEAST, x < inf
        # The square of an upper half that was rounded up may not overflow.
        argument = xp.where(normal & finite, xp.minimum(x, _MOST), 1.0)
        root = xp.sqrt(argument)
        long = root * _HALVE
        high = long - (long - root)
        low = root - high
        rest = ((argument - high * high) - (high + high) * low) - low * low
        y = xp.where(normal, root + rest / (root + root), 0.0)
        y = xp.where(x > -_LEAST, y, nan)
        return xp.where(finite, y, x)

    def _whole_power(self, x: Array, p: int) -> Array:
        xp = self.xp
        size = xp.abs(x)
        if p == 1:
            return self._flush(x)
        lowest, highest, below, above = _power_range(p)
        base = xp.where(size < lowest, 1.0, xp.minimum(size, highest))
        y = base
        for bit in f"{abs(p):b}"[1:]:
            y = y * y
            y = y * base if bit == "1" else y
        y = xp.ones_like(y) / y if p < 0 else y
        y = xp.where(size < lowest, below, xp.where(size > highest, above, y))
        return xp.where(x <= -_TINY, -y, y) if p % 2 else y

    def _real_power(self, x: Array, p: float, whole: bool, odd: bool) -> Array:
        """``e**(p log x)`` with ``p log x`` in two parts: the product of the leading 26 bits of each is exact."""
        xp = self.xp
        size = xp.abs(x) if whole else x
        normal, finite = size >= _TINY, size < inf
        high, r, low = self._log_parts(xp.where(normal & finite, size, 1.0))
        mantissa, exponent = frexp(p)
        leading = ldexp(round(mantissa * 2.0**26), exponent - 26)
        large, small = high * leading, high * (p - leading) + (r + low) * p
        product = large + small
        # Where the product saturates, what it rounded off may be large and means nothing.
        rounded_off = xp.minimum(xp.maximum((large - product) + small, -(2.0**-40)), 2.0**-40)
        y = self._exp(product, rounded_off)
        y = xp.where(finite, y, inf if p > 0 else 0.0)
        y = xp.where(normal, y, 0.0 if p > 0 else inf)
        y = xp.where(size > -_TINY, y, nan)
        return xp.where(x <= -_TINY, -y, y) if odd else y

    def _exponent_scale(self, m: Array) -> Array:
        xp, tables = self.xp, self._at(m)
        scale = xp.take(tables.above, xp.searchsorted(tables.binades, m, side="right"))
        return xp.where(m == m, scale, m)


@lru_cache
def _power_range(p: int) -> tuple[float, float, float, float]:
    """Where ``size**p`` stays in range, from and to, and the results below and above."""
    with localcontext() as context:
        context.prec = 30
        smallest, largest = ("-996", "1020") if p > 0 else ("-1020", "996")
        lowest, highest = (float(Decimal(2) ** (Decimal(end) / abs(p))) for end in (smallest, largest))
    return (lowest, highest, 0.0, inf) if p > 0 else (lowest, highest, inf, 0.0)
