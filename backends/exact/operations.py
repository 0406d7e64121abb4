"""Convolutions in exact numerics: numbers are split into slices, and windows are extracted from the slices.

Splitting commutes with indexing, and splitting the input is cheaper than splitting its windows by the size of the
kernel. Forward, each sample has one scale. In the weight's gradient, a sum over the batch, each channel has one scale
for the batches of all workers.
"""

from math import nan, prod
from typing import Any

from array_api_compat import device

from ...common.types import Array
from ..contractions.windows import PadWidths, Windows
from ..execution.blocks import concat_all, whole_batch
from ..execution.team import current_team
from ..operations import Operations
from ..overrides import chosen
from . import convolutions
from .elementwise import ExactElementwise
from .namespace import ExactNamespace
from .rows import ExactRows
from .splitting import budget


class ExactOperations(ExactElementwise):
    """`Operations` whose sums of products do not depend on the order of additions.

    Parameters
    ----------
    xp : ExactNamespace
    raw : Operations
        Operations of the library's own namespace, which extract the windows.
    """

    free_order = False

    def __init__(self, xp: ExactNamespace, raw: Operations) -> None:
        super().__init__(xp)
        self.raw = raw
        self.exact = xp.contractions
        #: Scales and sums of channels, and scales of samples.
        self.rows = ExactRows(raw, self.exact)

    def prepare(self, operation: str, problem: Any, dtype: str) -> Any:
        """An engine's object for the operation in exact numerics; None if it has none.

        It has the bits of array functions, and accepts float32 arrays as exact numerics stores them; convolutions
        widened ones.
        """
        if operation == "columns":
            return convolutions.prepare(self, problem)
        return self.raw.prepare(f"exact {operation}", problem, dtype)

    def by_adjoint(self, windows: Windows, channels: int, features: int, groups: int) -> bool:
        """Where tiles can compute both convolutions."""
        return convolutions.by_adjoint(windows, channels, features, groups)

    def windows(self, x: Array, windows: Windows) -> Array:
        """The library's own windows: nothing is computed."""
        return self.raw.windows(x, windows)

    def count_pairs(self, rows: Array, columns: Array, n: int) -> Array:
        """The library's own: whole numbers."""
        return self.raw.count_pairs(rows, columns, n)

    def contract(
        self, x: Array, w: Array, windows: Windows, padding: PadWidths = (), bias: Array | None = None
    ) -> Array:
        """Windows of slices of ``x``, which has one scale for each sample, times slices of ``w``."""
        xp, exact = self.xp, self.exact
        x = self._padded_batch(x, padding, windows)
        groups, terms, features = w.shape
        plan = budget(terms, exact.slice_products)
        # A NaN must not make its whole sample NaN: it is replaced by 0, and only its windows become NaN at the end.
        good = xp.isfinite(x)
        finite = xp.where(good, x, 0.0)
        s, t = exact.scale(finite, tuple(range(1, x.ndim))), exact.scale(w, -2)
        right = exact.join(exact.split(w, t, plan.right_bits, plan.right_count))
        right_scale = xp.reshape(t, (groups, 1, 1, features))
        parts = []
        for block in self._samples(x, windows):
            n = block.stop - block.start
            left = exact.split(finite[block, ...], s[block, ...], plan.left_bits, plan.left_count)
            quanta = exact.multiply([self._all_columns(q, windows, groups) for q in left], right, plan)
            quanta = xp.reshape(quanta, (groups, n, prod(windows.count), quanta.shape[-1]))
            rows = exact.combine(quanta, plan, xp.reshape(s[block, ...], (1, n, 1, 1)), right_scale)
            rows = rows + self._nan_windows(good[block, ...], windows, groups)
            rows = xp.permute_dims(xp.reshape(rows, (groups, n * prod(windows.count), features)), (1, 0, 2))
            parts.append(xp.reshape(rows, (n, *windows.count, groups * features)))
        y = concat_all(parts, 0, xp)
        return y if bias is None else y + bias

    def _samples(self, x: Array, windows: Windows) -> list[slice]:
        """Slices of the samples, in blocks."""
        row_bytes = 4 * prod(windows.count) * windows.cells * x.shape[-1]
        return [block.samples for block in self.blocks(x.shape[0], 1, row_bytes, x)]

    def bytes_of_block(self, like: Array) -> int:
        """The larger of this class's and the library's block, which is larger on a GPU."""
        return chosen().block_bytes or max(self.block_bytes, self.raw.bytes_of_block(like))

    def _all_columns(self, x: Array, windows: Windows, groups: int) -> Array:
        """Columns of all samples of the padded ``x``."""
        return self._columns(x, (), whole_batch(x.shape[0], windows), windows, groups)

    def _padded_batch(self, x: Array, padding: PadWidths, windows: Windows) -> Array:
        """All of ``x``, padded."""
        return self.padded(x, padding, whole_batch(x.shape[0], windows), windows)

    def _without_unread(self, x: Array, windows: Windows) -> Array:
        """``x`` with 0 for NaN and infinities that no window reads, which would make all sums of their channel NaN."""
        xp = self.xp
        spaced = (
            s > 1 or (o - 1) * s + (k - 1) * d + 1 < n
            for s, o, k, d, n in zip(
                windows.stride, windows.count, windows.kernel, windows.dilation, x.shape[1:-1], strict=True
            )
        )
        if not any(spaced) and all(d == 1 for d in windows.dilation):
            return x
        shape = (1, *x.shape[1:-1], 1)

        def mark() -> Array:
            found = xp.zeros(shape, dtype=xp.bool, device=device(x))
            for index in windows.slices():
                found[index] = True
            return found

        read = self.constant(mark, x, "read", windows, shape)
        return xp.where(xp.logical_or(read, xp.isfinite(x)), x, 0.0)

    def _nan_windows(self, good: Array, windows: Windows, groups: int) -> Array:
        """NaN for windows of a group with a number that is not finite, 0 for the others: ``(G, n, O, 1)``."""
        xp = self.xp
        n, channels = good.shape[0], good.shape[-1]
        split = xp.reshape(good, (*good.shape[:-1], groups, channels // groups))
        whole = xp.astype(xp.all(split, axis=-1), xp.float64)
        seen = self.windows(whole, windows)
        seen = xp.reshape(seen, (n, prod(windows.count), windows.cells, groups))
        lowest = xp.permute_dims(xp.min(seen, axis=2, keepdims=True), (3, 0, 1, 2))
        return xp.where(lowest == 1.0, lowest - 1.0, nan)

    def contract_weight_gradient(
        self, x: Array, dy: Array, windows: Windows, groups: int, padding: PadWidths = ()
    ) -> Array:
        """Sum over the samples of all workers; each channel of ``x`` and of ``dy`` has one scale."""
        x = self._without_unread(self._padded_batch(x, padding, windows), windows)
        xp, exact, team = self.xp, self.exact, current_team()
        channels, features = x.shape[-1] // groups, dy.shape[-1] // groups
        rows = x.shape[0] * prod(windows.count)
        plan = budget(rows if team is None else team.rows(rows), exact.slice_products)
        batch = tuple(range(x.ndim - 1))
        s, t = exact.scale(x, batch, team), exact.scale(dy, batch, team)
        quanta = None
        for block in self._samples(x, windows):
            left = exact.split(x[block, ...], s, plan.left_bits, plan.left_count)
            right = exact.split(dy[block, ...], t, plan.right_bits, plan.right_count)
            columns = [xp.matrix_transpose(self._all_columns(q, windows, groups)) for q in left]
            part = exact.multiply(columns, exact.join([self._rows(q, groups) for q in right]), plan)
            quanta = part if quanta is None else quanta + part
        if team is not None:
            quanta = team.sum(quanta)
        cells = xp.broadcast_to(xp.reshape(s, (groups, 1, channels)), (groups, windows.cells, channels))
        left_scale = xp.reshape(cells, (groups, windows.cells * channels, 1))
        return exact.combine(quanta, plan, left_scale, xp.reshape(t, (groups, 1, features)))

    def sum_rows(self, x: Array) -> Array:
        """Sum over the rows of all workers."""
        return self.rows.sum(x)

    def total(self, x: Array, axes: tuple[int, ...]) -> Array:
        """As one sum, because the order of additions has no effect."""
        return self.xp.sum(x, axis=axes, keepdims=True) if axes else x

    def sum_rows_at(self, x: Array, index: Array, count: int) -> Array:
        """Sums over the rows of all workers."""
        return self.exact.sum_groups(x, lambda rows: self.raw.sum_rows_at(rows, index, count), current_team())

    def contract_rows(self, x: Array, dy: Array, out: Array | None = None) -> Array:
        """Sum over the rows of all workers."""
        total = self.exact.contract_rows(x, dy, current_team())
        if out is None:
            return total
        out[...] = total
        return out
