"""Matrix products and sums of float64 arrays whose bits do not depend on the order of additions.

The method is described in `splitting`. A product has four steps, each a method, so that a convolution can extract its
windows from slices and add up blocks between the steps:

    plan = budget(terms)
    s, t = exact.scale(x, -1), exact.scale(w, -2)
    right = exact.join(exact.split(w, t, plan.right_bits, plan.right_count))
    quanta = exact.multiply(exact.split(x, s, plan.left_bits, plan.left_count), right, plan)
    y = exact.combine(quanta, plan, s, t)

Quanta of parts of the terms, from blocks or other workers, can be added before the last step; that is exact too.
"""

from collections.abc import Callable
from functools import reduce
from math import ldexp, nan, prod

from ...common.types import Array, Namespace
from ..execution.team import Team
from .elementary import Elementary
from .splitting import Budget, Splitting, budget, length

ONE_SLICE_LENGTH = 16  # a sum of up to 2**16 terms needs one slice, of 37 bits or more


class ExactContractions(Splitting):
    """Matrix products and sums whose bits do not depend on the order of additions. A zero in a result is +0.

    Parameters
    ----------
    xp : namespace
        An Array API namespace. Arrays are float64, on any of its devices.
    slice_products : {1, 2, 3}
        Number of matrix products of slices that are added up to one contraction, see `budget`.
    chunk : int, optional
        See `Splitting`. On NumPy, 2**17 reduces the time of large matrix products to 0.6, and that of sums to 0.5.
    elementary : Elementary, optional
        See `Splitting`.
    """

    def __init__(
        self, xp: Namespace, slice_products: int = 2, chunk: int = 0, elementary: Elementary | None = None
    ) -> None:
        super().__init__(xp, chunk, elementary)
        self.slice_products = slice_products

    def matmul(self, x: Array, w: Array) -> Array:
        """``x @ w`` of the standard, for vectors, matrices and stacks.

        ``x`` is scaled by row and ``w`` by column. A NaN or an infinity makes its whole row or column of the result
        NaN.
        """
        xp = self.xp
        terms = x.shape[-1] if x.ndim else None
        if w.ndim == 0 or terms is None or w.shape[max(w.ndim - 2, 0)] != terms:
            raise ValueError(f"matmul of shapes {x.shape} and {w.shape}: the lengths of the contraction differ")
        left = xp.reshape(x, (1, terms)) if x.ndim == 1 else x
        right = xp.reshape(w, (terms, 1)) if w.ndim == 1 else w
        # For one right matrix, the rows of a stack are rows of one product, which is faster than several.
        rows = xp.reshape(left, (prod(left.shape[:-1]), terms)) if right.ndim == 2 else left
        plan = budget(terms, self.slice_products)
        t = self.scale(right, -2)
        joined = self.join(self.split(right, t, plan.right_bits, plan.right_count))
        parts = []
        for block in self._blocks(rows, -2):
            part = rows[..., block, :]
            s = self.scale(part, -1)
            quanta = self.multiply(self.split(part, s, plan.left_bits, plan.left_count), joined, plan)
            parts.append(self.combine(quanta, plan, s, t))
        y = self._concat(parts, -2)
        stack = left.shape[:-2] if right.ndim == 2 else y.shape[:-2]
        return xp.reshape(y, (*stack, *left.shape[-2 : -1 if x.ndim > 1 else -2], *w.shape[1:][-1:]))

    def contract_rows(self, x: Array, dy: Array, team: Team | None = None) -> Array:
        """Sum over rows ``y[..., a, b] = sum_r x[..., r, a] * dy[..., r, b]``, over the rows of all workers.

        Both are scaled by column, over all rows, so that the result does not depend on how rows are distributed among
        workers; a worker may have none. A NaN or an infinity in a column makes its row or column of the result NaN.
        """
        xp = self.xp
        rows = x.shape[-2]
        if dy.shape[:-1] != x.shape[:-1]:
            raise ValueError(f"contract_rows of shapes {x.shape} and {dy.shape}: all axes but the last must agree")
        plan = budget(rows if team is None else team.rows(rows), self.slice_products)
        s, t = self.scale(x, -2, team), self.scale(dy, -2, team)
        quanta = None
        for block in self._blocks(x, -2):
            left = self.split(x[..., block, :], s, plan.left_bits, plan.left_count)
            right = self.join(self.split(dy[..., block, :], t, plan.right_bits, plan.right_count))
            part = self.multiply([xp.matrix_transpose(q) for q in left], right, plan)
            quanta = part if quanta is None else quanta + part
        if team is not None:
            quanta = team.sum(quanta)
        return self.combine(quanta, plan, xp.matrix_transpose(s), t)

    def sum(
        self,
        x: Array,
        axis: int | tuple[int, ...] | None = None,
        keepdims: bool = False,
        team: Team | None = None,
    ) -> Array:
        """Sum over axes (and workers), of terms rounded to multiples of one quantum.

        With ``L = ceil(log2(terms))`` and ``s`` above the largest magnitude, the quantum is ``s * 2**(L - 53)`` for up
        to 2**16 terms, and ``s * 2**(2L - 106)`` for more. A single term is returned unchanged, an empty sum is 0, and
        the sum of a NaN or an infinity is NaN.
        """
        xp = self.xp
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        reduced = tuple(sorted({range(x.ndim)[a] for a in axes}))
        shape = tuple(n if i not in reduced else 1 for i, n in enumerate(x.shape) if i not in reduced or keepdims)
        if not reduced:
            x, reduced = xp.reshape(x, (1, *x.shape)), (0,)
        terms = prod(x.shape[a] for a in reduced)
        s = self.scale(x, reduced, team)
        levels = length(terms if team is None else team.rows(terms))
        bits, count = 53 - levels, 1 if levels <= ONE_SLICE_LENGTH else 2
        inverse = self._per_quantum(s, bits)
        blocks = []
        for block in self._blocks(x, 0):
            # A NaN may be added here, unlike in a matrix product: its scale makes all terms of its sum NaN.
            scaled = x[block, ...] * (inverse if 0 in reduced else inverse[block, ...])
            blocks.append([xp.sum(q, axis=reduced, keepdims=True) for q in self._slices(scaled, bits, count)])
        levelled = [list(parts) for parts in zip(*blocks, strict=True)]
        quanta = [reduce(xp.add, parts) if 0 in reduced else self._concat(parts, 0) for parts in levelled]
        if team is not None:
            quanta = [team.sum(part) for part in quanta]
        y = quanta[0] + 0.0
        if count == 2:
            y += quanta[1] * ldexp(1.0, -bits)
        y *= s * ldexp(1.0, -bits)
        return xp.reshape(y, shape)

    def sum_groups(self, x: Array, total: Callable[[Array], Array], team: Team | None = None) -> Array:
        """Sums over groups of the rows of ``x (R, A)``, and over workers; ``total`` adds up the rows of each group.

        Terms are rounded as in `sum`, with one scale for each column. The sum of a NaN or an infinity is NaN, and no
        other one.
        """
        xp, rows = self.xp, x.shape[0]
        good = xp.isfinite(x)
        finite = xp.where(good, x, 0.0)
        s = self.scale(finite, 0, team)
        levels = length(rows if team is None else team.rows(rows))
        bits, count = 53 - levels, 1 if levels <= ONE_SLICE_LENGTH else 2
        parts = [*self._slices(finite * self._per_quantum(s, bits), bits, count), 1.0 - xp.astype(good, x.dtype)]
        sums = [total(part) for part in parts]
        if team is not None:
            sums = [team.sum(part) for part in sums]
        y = sums[0] + 0.0
        if count == 2:
            y += sums[1] * ldexp(1.0, -bits)
        y *= s * ldexp(1.0, -bits)
        return xp.where(sums[-1] > 0.0, nan, y)

    def join(self, slices: list[Array]) -> Array:
        """Concatenate slices of a right operand, for one product instead of one each (1.2 times as fast on NumPy)."""
        return self._concat(slices, -1)

    def multiply(self, left: list[Array], right: Array, plan: Budget) -> Array:
        """Exact products of slices ``(..., M, K)`` with joined slices ``(..., K, count * N)``.

        Returns quanta ``(..., M, count * N)``: the leading product and, if ``count`` is 2, the lower one, whose unit is
        ``2**-right_bits`` times that of the leading one. They are float64, or int64 if the plan is `wide`. ``K`` may be
        a part of the plan's terms.
        """
        xp = self.xp
        terms = right.shape[-2]
        if terms <= plan.product_terms:
            quanta = self._multiply(left, right)
            return xp.astype(quanta, xp.int64) if plan.wide else quanta
        if not plan.wide:
            raise ValueError(f"a contraction must have at most the {plan.terms} terms of its plan, got {terms}")
        quanta = None
        for start in range(0, terms, plan.product_terms):
            block = slice(start, min(start + plan.product_terms, terms))
            part = xp.astype(self._multiply([q[..., block] for q in left], right[..., block, :]), xp.int64)
            quanta = part if quanta is None else quanta + part
        return quanta

    def combine(self, quanta: Array, plan: Budget, left_scale: Array, right_scale: Array) -> Array:
        """Combine the quanta of all terms: ``s * t * (leading + lower * 2**-right_bits)`` times powers of two.

        ``left_scale (..., M, 1)`` and ``right_scale (..., 1, N)`` broadcast with the result, which overflows only if
        the product of two scales does, beyond 2**960.
        """
        xp = self.xp
        if plan.wide:
            quanta = xp.astype(quanta, xp.float64)
        if plan.right_count == 2:
            columns = quanta.shape[-1] // 2
            y = quanta[..., columns:] * ldexp(1.0, -plan.right_bits)
            y += 0.0  # -0 becomes +0
            y += quanta[..., :columns]
        else:
            y = quanta + 0.0
        y *= left_scale * ldexp(1.0, -plan.left_bits)
        y *= right_scale * ldexp(1.0, -plan.right_bits)
        return y

    def _multiply(self, left: list[Array], right: Array) -> Array:
        quanta = self.xp.matmul(left[0], right)
        if len(left) == 2:
            columns = right.shape[-1] // 2
            quanta[..., columns:] += self.xp.matmul(left[1], right[..., :columns])
        return quanta
