"""Numbers cut into whole numbers that are small enough for a sum of their products to be exact.

A float64 sum of whole numbers is exact as long as no partial sum exceeds 2**53, and then its order, its blocking, fused
multiply-adds and wide accumulators change nothing. So an operand is divided by a power of two ``s`` above its
magnitude, and its leading ``bits`` bits, then the next ``bits`` bits, become slices of whole numbers; products of
slices are added up by any float64 matmul, and the powers of two go back in at the very end.

That slices are whole numbers, instead of multiples of ``s * 2**-bits``, keeps everything in between far from overflow
and underflow, whatever the scales. What enters: magnitudes from 2**600 on count as infinite, and a scale is at least
2**-400, so that numbers below 2**-454 count as zero. Infinities count as NaN.

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

BLOCK = 1 << 16  # terms of a float64 contraction; more of them are added as integers
MOST_TERMS = (1 << 26) - 1  # of 2**37 quanta each, whose sum is an int64


@dataclass(frozen=True)
class Budget:
    """How a contraction is cut: bits per slice and number of slices of each side.

    The second slice of a side is at most half as large as its first, so the two products of lower order together are
    within the budget of one.
    """

    terms: int
    left_bits: int
    left_count: int
    right_bits: int
    right_count: int

    @property
    def wide(self) -> bool:
        """Whether the quanta of this contraction are int64."""
        return self.terms > BLOCK


def length(terms: int) -> int:
    """``ceil(log2(terms))``; 0 for none."""
    return max(terms - 1, 0).bit_length()


def budget(terms: int, slice_products: int = 2) -> Budget:
    """Cut a contraction of so many terms such that ``terms * 2**(left_bits + right_bits) <= 2**53``.

    A slice reaches ``2**bits`` inclusive, by rounding up, and that bound allows for it. Beyond `BLOCK` terms it holds
    for each block.

    Parameters
    ----------
    terms : int
        Length of the contraction, over all workers.
    slice_products : {2, 3}
        2 errs by 0.5 to 0.9 units of 2**-24 of the norm on normally distributed operands of 33 to 4608 terms, and by
        1.6 on 32, where it makes one product do, as much as float32 itself. Errors are relative to the largest
        number of a row: where sizes differ much (lognormal), they exceed float32's from some thousand terms on. 3 has
        but the rounding to float32.

    Raises
    ------
    ValueError
        From 2**26 terms on, and for another number of slice products.
    """
    if slice_products not in (2, 3):
        raise ValueError(f"slice_products must be 2 or 3, got {slice_products!r}")
    if terms > MOST_TERMS:
        raise ValueError(
            f"an exact contraction has at most {MOST_TERMS} terms, got {terms}: contract parts and add them"
        )
    bits = 53 - length(min(terms, BLOCK))
    if slice_products == 3:
        return Budget(terms, bits // 2, 2, bits // 2, 2)
    if terms <= 32:
        half = min(26, bits // 2)
        return Budget(terms, half, 1, half, 1)
    left = min(25, 2 * bits // 3)
    return Budget(terms, left, 1, bits - left, 2)


class Splitting:
    """Scales and slices of float64 arrays.

    Parameters
    ----------
    xp : namespace
        An Array API namespace. Arrays may live on any of its devices.
    chunk : int, optional
        On a CPU, go through larger arrays in blocks of about this many elements, whose temporaries stay in the cache.
        It changes the time and never a bit. 0, the default, takes arrays whole, as suits a GPU.
    elementary : Elementary, optional
        Whose tables hold the powers of two.
    """

    def __init__(self, xp: Namespace, chunk: int = 0, elementary: Elementary | None = None) -> None:
        self.xp = xp
        self.chunk = chunk
        self.elementary = Elementary(xp) if elementary is None else elementary

    def scale(self, x: Array, axes: int | tuple[int, ...], team: Team | None = None) -> Array:
        """Power of two strictly above ``max|x|`` over the axes (and workers), which stay with length 1.

        1 where all is zero or nothing is there, NaN where there is a NaN or an infinity.
        """
        xp = self.xp
        axes = (axes,) if isinstance(axes, int) else axes
        reduced = {range(x.ndim)[axis] for axis in axes}
        if any(x.shape[axis] == 0 for axis in reduced):
            # The maximum of nothing is an error, the sum is 0.
            largest = xp.sum(x, axis=axes, keepdims=True)
        else:
            parts = [xp.max(xp.abs(x[block, ...]), axis=axes, keepdims=True) for block in self._blocks(x, 0)]
            largest = reduce(xp.maximum, parts) if 0 in reduced else self._concat(parts, 0)
        if team is not None:
            largest = team.max(largest)
        return self.elementary.contraction_scale(largest)

    def split(self, x: Array, s: Array, bits: int, count: int) -> list[Array]:
        """Slices ``q`` of whole numbers with ``x = s * sum_i q_i * 2**(-bits * (i + 1))``, but for what lies below.

        ``|q_0| <= 2**bits``, and ``|q_i| <= 2**(bits - 1)`` for the rest, for ``|x| < s``. Where the scale is NaN they
        are 0: no sum has to carry a NaN, the scale brings it back. A slice commutes with any choice of elements.
        """
        xp = self.xp
        return self._slices(xp.where(s == s, x * self._per_quantum(s, bits), 0.0), bits, count)

    def _per_quantum(self, s: Array, bits: int) -> Array:
        """``2**bits / s``, exact in whatever way a library divides powers of two."""
        return ldexp(1.0, bits) / s

    def _slices(self, rest: Array, bits: int, count: int) -> list[Array]:
        """Whole numbers closest to what is left, which is an array of one's own, ``bits`` further down each time."""
        slices = [self.xp.round(rest)]
        for _ in range(count - 1):
            rest -= slices[-1]
            rest *= ldexp(1.0, bits)
            slices.append(self.xp.round(rest))
        return slices

    def _blocks(self, x: Array, axis: int) -> Iterator[slice]:
        """Slices of an axis, of about `chunk` elements each; at least one."""
        n = x.shape[axis]
        per_index = max(prod(x.shape) // max(n, 1), 1)
        size = max(self.chunk // per_index, 1) if self.chunk else max(n, 1)
        for start in range(0, max(n, 1), size):
            yield slice(start, min(start + size, n))

    def _concat(self, parts: list[Array], axis: int) -> Array:
        return concat_all(parts, axis, self.xp)
