"""Split numbers into slices: whole numbers that are small enough for a sum of their products to be exact.

A float64 sum of whole numbers is exact as long as no partial sum exceeds 2**53; then its order, its blocking, fused
multiply-adds and wide accumulators do not change it. So an operand is divided by a power of two ``s`` above its
magnitude. Its leading ``bits`` bits and the next ``bits`` bits become slices of whole numbers, any float64 matmul
multiplies slices, and the result is multiplied by the powers of two at the end.

Slices are whole numbers, and not multiples of ``s * 2**-bits``, so that no scale makes a product overflow or underflow.
Of the operands, magnitudes from 2**600 on count as infinite; a scale is at least 2**-400, so that numbers below 2**-454
count as zero. Infinities count as NaN.

References
----------
K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast routines
of matrix multiplication and its applications", Numerical Algorithms 59 (2012) 95-118.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import ldexp, prod

from ...common.types import Array, Namespace
from ..execution.blocks import concat_all
from ..execution.team import Team
from .elementary import Elementary

FEW_TERMS = 32  # of which one product of slices has float32's accuracy
ONE_PRODUCT_BITS = 41  # of both slices together, at least, if there is one product of more terms
FLOAT64_TERMS = 1 << 16  # most terms of a float64 product; products of blocks of them are added as integers
MOST_TERMS = (1 << 26) - 1  # of 2**37 quanta each: their sum fits into an int64


@dataclass(frozen=True)
class Budget:
    """How the operands of a contraction are split: bits of a slice and number of slices of either side.

    A float64 product has at most `product_terms` terms; products of more are added as integers.

    The second slice of a side is at most half as large as its first, so that the sum of the two products of lower order
    is within the budget of one.
    """

    terms: int
    left_bits: int
    left_count: int
    right_bits: int
    right_count: int
    product_terms: int = FLOAT64_TERMS

    @property
    def wide(self) -> bool:
        """Whether the quanta of this contraction are int64, not float64."""
        return self.terms > self.product_terms


def length(terms: int) -> int:
    """``ceil(log2(terms))``; 0 for none."""
    return max(terms - 1, 0).bit_length()


def budget(terms: int, slice_products: int = 2) -> Budget:
    """Choose slices for a number of terms such that ``terms * 2**(left_bits + right_bits) <= 2**53``.

    An entry of a slice is at most ``2**bits``, which is reached by rounding up. Beyond `Budget.product_terms` terms the
    bound holds for each block of them, and the sum of all is at most 2**62.

    Parameters
    ----------
    terms : int
        Length of the contraction, over all workers.
    slice_products : {1, 2, 3}
        Number of products of slices. 1: one slice times one, of 20 or 21 bits from 2049 to 2**21 terms, of fewer for
        more terms and up to 26 for fewer. 2: the left slice times two right slices, or one times one for up to 32
        terms. 3: two times two slices, without the product of the lower two.

        The error of 2 is 0.5 to 0.9 units of 2**-24 of the norm on normally distributed operands of 33 to 4608 terms,
        and 1.6 units on 32 terms, which is float32's own error; that of 1 is 3 to 38 units. Errors are relative to the
        largest number of a row: if magnitudes differ much (lognormal), they exceed float32's from some thousand terms
        on. 3 has only the error of the rounding to float32.

    Raises
    ------
    ValueError
        From 2**26 terms on, and for another number of slice products.
    """
    if slice_products not in (1, 2, 3):
        raise ValueError(f"slice_products must be 1, 2 or 3, got {slice_products!r}")
    if terms > MOST_TERMS:
        raise ValueError(
            f"an exact contraction must have at most {MOST_TERMS} terms, got {terms}: contract parts and add them"
        )
    if slice_products == 1 and terms > FEW_TERMS:
        bits = max(53 - length(terms), min(ONE_PRODUCT_BITS, 62 - length(terms)))
        return Budget(terms, bits - bits // 2, 1, bits // 2, 1, 1 << (53 - bits))
    bits = 53 - length(min(terms, FLOAT64_TERMS))
    if slice_products == 3:
        return Budget(terms, bits // 2, 2, bits // 2, 2)
    if terms <= FEW_TERMS:
        half = min(26, bits // 2)
        return Budget(terms, half, 1, half, 1)
    left = min(25, 2 * bits // 3)
    return Budget(terms, left, 1, bits - left, 2)


class Splitting:
    """Scales and slices of float64 arrays.

    Parameters
    ----------
    xp : namespace
        An Array API namespace. Arrays may be on any of its devices.
    chunk : int, optional
        On a CPU, process larger arrays in blocks of about this many elements, whose temporaries stay in the cache; the
        bits are the same. 0, the default, does not split arrays, which is best on a GPU.
    elementary : Elementary, optional
        Has the tables of powers of two.
    """

    def __init__(self, xp: Namespace, chunk: int = 0, elementary: Elementary | None = None) -> None:
        self.xp = xp
        self.chunk = chunk
        self.elementary = Elementary(xp) if elementary is None else elementary

    def scale(self, x: Array, axes: int | tuple[int, ...], team: Team | None = None) -> Array:
        """Power of two strictly above ``max|x|`` over the axes (and workers), which are kept with length 1.

        It is 1 if all numbers are 0 or there are none, and NaN if one is NaN or infinite.
        """
        xp = self.xp
        axes = (axes,) if isinstance(axes, int) else axes
        reduced = {range(x.ndim)[axis] for axis in axes}
        if any(x.shape[axis] == 0 for axis in reduced):
            # `max` of an empty array raises, and `sum` returns 0.
            largest = xp.sum(x, axis=axes, keepdims=True)
        else:
            parts = [xp.max(xp.abs(x[block, ...]), axis=axes, keepdims=True) for block in self._blocks(x, 0)]
            largest = reduce(xp.maximum, parts) if 0 in reduced else self._concat(parts, 0)
        if team is not None:
            largest = team.max(largest)
        return self.elementary.contraction_scale(largest)

    def split(self, x: Array, s: Array, bits: int, count: int) -> list[Array]:
        """Slices ``q`` of whole numbers: ``s * sum_i q_i * 2**(-bits * (i + 1))`` is ``x``, rounded to the last slice.

        For ``|x| < s``, ``|q_0| <= 2**bits``, and ``|q_i| <= 2**(bits - 1)`` for the others. Slices are 0 if the scale
        is NaN, so that no product has a NaN; the scale makes the result NaN. Splitting commutes with indexing.
        """
        xp = self.xp
        return self._slices(xp.where(s == s, x * self._per_quantum(s, bits), 0.0), bits, count)

    def _per_quantum(self, s: Array, bits: int) -> Array:
        """``2**bits / s``, which is exact on every library since both are powers of two."""
        return ldexp(1.0, bits) / s

    def _slices(self, rest: Array, bits: int, count: int) -> list[Array]:
        """``rest`` rounded to whole numbers, then ``2**bits`` times the remainder, and so on; overwrites ``rest``."""
        slices = [self.xp.round(rest)]
        for _ in range(count - 1):
            rest -= slices[-1]
            rest *= ldexp(1.0, bits)
            slices.append(self.xp.round(rest))
        return slices

    def _blocks(self, x: Array, axis: int) -> Iterator[slice]:
        """Slices of an axis with about `chunk` elements of ``x`` each; at least one slice."""
        n = x.shape[axis]
        per_index = max(prod(x.shape) // max(n, 1), 1)
        size = max(self.chunk // per_index, 1) if self.chunk else max(n, 1)
        for start in range(0, max(n, 1), size):
            yield slice(start, min(start + size, n))

    def _concat(self, parts: list[Array], axis: int) -> Array:
        return concat_all(parts, axis, self.xp)
