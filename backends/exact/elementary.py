"""Elementary functions in float64 whose bits are the same on every backend.

IEEE-754 defines the results of ``+ - * /``, `round`, comparisons and casts, and every library conforms to it. `exp`,
`log` and `tanh` differ in the last bit from library to library, and so does PyTorch's `sqrt` on a CPU, which is only a
first approximation here. The functions of this package use the defined operations only, one array operation at a time,
so that no compiler can contract ``a * b + c``. Subnormal numbers could still differ, since a machine may flush them to
zero: an argument below 2**-1000 counts as zero, and a result below 2**-996 (about 1e-300) is zero, by comparisons whose
outcome does not depend on flushing. (Results close to their argument, such as `tanh`'s near 0, follow the first rule.)

Exponents are found by `searchsorted` in the powers of two and removed by `take`; both are exact, and the standard has
no `frexp`. Arguments for which a formula fails (NaN, infinities, outside the domain) are replaced before it, and their
results inserted after it, so that no library warns. The sign of zero is not preserved.

The functions themselves are in `exponentials`, `logarithms` and `powers`.
"""

from collections.abc import Callable
from functools import partial
from math import isinf, nan

from array_api_compat import device

from ...common.types import Array, Device, Namespace
from ..execution.blocks import concat_all
from . import exponentials, logarithms, powers
from .tables import HIGHEST_SCALE, Tables


class Elementary:
    """Elementary functions of float64 arrays, made of operations whose results IEEE-754 defines.

    Parameters
    ----------
    xp : namespace
        An Array API namespace. Arrays may have any shape and be on any of its devices.
    chunk : int, optional
        On a CPU, process larger arrays in pieces of this size, whose temporaries stay in the cache; the bits are the
        same. 0, the default, does not split arrays, which is best on a GPU.
    """

    def __init__(self, xp: Namespace, chunk: int = 0) -> None:
        self.xp = xp
        self.chunk = chunk
        # A list, searched with ==: a device need not be hashable, and CuPy's is not.
        self._tables: list[tuple[Device, Tables]] = []

    def exp(self, x: Array) -> Array:
        """``e**x``; 0 below -690.4, inf above 709.77."""
        return self._tabulated(exponentials.exp, x)

    def expm1(self, x: Array) -> Array:
        """``e**x - 1``, accurate relative to the result near 0."""
        return self._tabulated(exponentials.expm1, x)

    def log(self, x: Array) -> Array:
        """Natural logarithm; -inf at 0 and NaN below."""
        return self._tabulated(logarithms.log, x)

    def log1p(self, x: Array) -> Array:
        """``log(1 + x)``, accurate relative to the result near 0; -inf at -1 and NaN below."""
        return self._tabulated(logarithms.log1p, x)

    def tanh(self, x: Array) -> Array:
        """``(e**2x - 1) / (e**2x + 1)``."""
        return self._tabulated(exponentials.tanh, x)

    def sinh(self, x: Array) -> Array:
        """``(e**x - e**-x) / 2``; infinite where `exp` of the magnitude is."""
        return self._tabulated(exponentials.sinh, x)

    def cosh(self, x: Array) -> Array:
        """``(e**x + e**-x) / 2``; infinite where `exp` of the magnitude is."""
        return self._tabulated(exponentials.cosh, x)

    def sqrt(self, x: Array) -> Array:
        """Square root; NaN below 0, and 0 below 2**-900.

        Correctly rounded, except for roots within 2**-52 units in the last place of the middle between two numbers:
        some four of all float64 mantissas, and none of a float32 value (all were tried).
        """
        return self._flat(partial(powers.sqrt, xp=self.xp), x)

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
            return self._flat(partial(powers.whole_power, p=int(p), xp=self.xp), x)
        odd = whole and not infinite and int(p) % 2 == 1
        # From 2**63 on, the power of every base but 1 is 0 or inf; a larger exponent would overflow in between.
        bounded = float(max(-(2**64), min(p, 2**64)))
        return self._tabulated(partial(powers.real_power, p=bounded, whole=whole, odd=odd), x)

    def exponent_scale(self, m: Array) -> Array:
        """The smallest power of two strictly above ``m >= 0``; 1 where ``m`` is 0, NaN where it is NaN or inf.

        From 2**1023 on there is none, and the result is inf.
        """
        return self._tabulated(_exponent_scale, m)

    def contraction_scale(self, m: Array) -> Array:
        """`exponent_scale`, but at least 2**-400, and NaN where it would be above 2**600."""
        xp, tables = self.xp, self._tables_on(m)
        flat = xp.reshape(m, (-1,))
        scale = xp.take(tables.clamped, xp.searchsorted(tables.binades, flat, side="right"))
        return xp.reshape(xp.where(flat < HIGHEST_SCALE, scale, nan), m.shape)

    def _tabulated(self, function: Callable[..., Array], x: Array) -> Array:
        """`_flat` of a function of ``x``, ``xp`` and ``tables``."""
        return self._flat(partial(function, xp=self.xp, tables=self._tables_on(x)), x)

    def _flat(self, function: Callable[[Array], Array], x: Array) -> Array:
        """A function of 1-d arrays, applied to all of ``x`` or in pieces of `chunk` entries."""
        xp = self.xp
        flat = xp.reshape(x, (-1,))
        if 0 < self.chunk < flat.shape[0]:
            n = flat.shape[0]
            pieces = (flat[start : min(start + self.chunk, n)] for start in range(0, n, self.chunk))
            y = concat_all([function(piece) for piece in pieces], 0, xp)
        else:
            y = function(flat)
        return xp.reshape(y, x.shape)

    def _tables_on(self, x: Array) -> Tables:
        """The tables on the device of ``x``."""
        where = device(x)
        for known, tables in self._tables:
            if known == where:
                return tables
        tables = Tables(self.xp, where)
        self._tables.append((where, tables))
        return tables


def _exponent_scale(m: Array, xp: Namespace, tables: Tables) -> Array:
    scale = xp.take(tables.above, xp.searchsorted(tables.binades, m, side="right"))
    return xp.where(m == m, scale, m)
