"""Sums of products: matrix products, and the bilinear map behind convolution with its two adjoints.

`Contractions.contract` multiplies windows of an input by a matrix. It is linear in both, and its adjoints are the two
gradients of a convolution. All three go through the columns of a block of the batch (im2col) as matrix products.

Exact numerics overrides the contractions as a whole (`xpnn.backends.exact.operations`): splitting a number commutes
with cutting windows, and is kernel-size times cheaper before it.
"""

from math import prod
from typing import ClassVar

from array_api_compat import device

from ...common.types import Array
from ..execution.blocks import Block, even_slices
from ..execution.execution import Execution
from .windows import PadWidths, Windows

# Most partial sums of a weight gradient, each of its size, that workers compute side by side.
PARTIAL_SUMS = 16


class Contractions(Execution):
    """Sums of products in functions of the standard.

    Shapes: input ``x (N, *S, C)``, output ``y (N, *O, F)``, matrix ``w (G, K*C/G, F/G)`` for ``G`` groups of channels
    and ``K`` kernel cells, where cells vary slower than channels. ``padding`` holds the zeros before and after each
    spatial axis, and windows are positions in the padded input.
    """

    #: Whether sums of products may be arranged in any way that is mathematically the same.
    free_order: ClassVar[bool] = True

    def by_adjoint(self, windows: Windows, channels: int, features: int, groups: int) -> bool:
        """Whether the input's gradient at stride 1 is a convolution with the rotated kernel, and not sums of windows.

        It is decided by shape alone, since the two differ in rounding.
        """
        return self.free_order

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a @ b``, written to ``out`` where that is given."""
        if out is None:
            return self.xp.matmul(a, b)
        out[...] = self.xp.matmul(a, b)
        return out

    def product(self, a: Array, b: Array) -> Array:
        """``a @ b`` of two matrices, which workers may compute together."""
        return self.matmul(a, b)

    def matmul_into(self, target: Array, index: tuple[slice | int, ...], a: Array, b: Array) -> None:
        """``target[index] = a @ b``."""
        target[index] = self.matmul(a, b)

    def contract_rows(self, x: Array, dy: Array, out: Array | None = None) -> Array:
        """``x (R, A)`` transposed times ``dy (R, B)``: a sum over rows, the samples of the batch."""
        x = self.xp.matrix_transpose(x)
        return self.product(x, dy) if out is None else self.matmul(x, dy, out)

    def sum_rows(self, x: Array) -> Array:
        """Sum of ``x (R, A)`` over its rows: ``(A,)``."""
        return self.xp.sum(x, axis=0)

    def sum_rows_at(self, x: Array, index: Array, count: int) -> Array:
        """Sums of the rows of ``x (R, A)`` that have the same index: ``y[i] = sum of x[r] with index[r] = i``.

        Rows with an index outside of ``0 ... count - 1`` are left out. The rows are sorted by index; after ``s`` steps
        of the loop each holds the sum of up to ``2**s`` rows of its index that end with it.
        """
        xp, rows = self.xp, x.shape[0]
        if not rows or not count:
            return xp.zeros((count, x.shape[1]), dtype=x.dtype, device=device(x))
        order = xp.argsort(index, stable=True)
        index, x = xp.take(index, order), xp.take(x, order, axis=0)
        step = 1
        while step < rows:
            same = xp.expand_dims(index[step:] == index[:-step], axis=1)
            x = xp.concat([x[:step, :], x[step:, :] + xp.where(same, x[:-step, :], 0.0)], axis=0)
            step *= 2
        wanted = xp.arange(count, dtype=index.dtype, device=device(index))
        last = xp.searchsorted(index, wanted, side="right") - 1
        last = xp.where(last < 0, xp.zeros_like(last), last)
        found = xp.expand_dims(xp.take(index, last) == wanted, axis=1)
        return xp.where(found, xp.take(x, last, axis=0), 0.0)

    def total(self, x: Array, axes: tuple[int, ...]) -> Array:
        """Sum over axes, which stay with size 1: within each sample first, then over the samples.

        Libraries add the rows of a channels-last array one after the other, and the rounding error grows with their
        number. In float32 the mean of 128 samples of 32 x 32 cells around 10 is wrong by 1.3e-4 in one step and by
        7e-6 in two, in the same time.
        """
        xp, within = self.xp, tuple(axis for axis in axes if axis)
        if within:
            x = xp.sum(x, axis=within, keepdims=True)
        return xp.sum(x, axis=0, keepdims=True) if 0 in axes else x

    def windows(self, x: Array, windows: Windows) -> Array:
        """The windows of ``x (N, *S, C)``: ``(N, *O, *kernel, C)``, to be read only."""
        cells = self.xp.stack([x[index] for index in windows.slices()], axis=-2)
        return self.xp.reshape(cells, (x.shape[0], *windows.count, *windows.kernel, x.shape[-1]))

    def padded(self, x: Array, padding: PadWidths, block: Block, windows: Windows) -> Array:
        """The part of the padded ``x (N, *S, C)`` that the windows of a block read; a view if there is no padding."""
        first, last = block.reach(windows)
        if not any(before or after for before, after in padding):
            return x[(block.samples, slice(first, last), ...)]
        before, size = padding[0][0], x.shape[1]
        inside = [slice(min(max(before - first, 0), last - first), max(min(before + size, last) - first, 0))]
        source = [slice(min(max(first - before, 0), size), min(max(last - before, 0), size))]
        shape = [block.count, last - first]
        for n, (low, high) in zip(x.shape[2:-1], padding[1:], strict=True):
            shape.append(low + n + high)
            inside.append(slice(low, low + n))
            source.append(slice(None))
        strip = self.workspace("padded", (*shape, x.shape[-1]), x)
        before_it: tuple[slice, ...] = ()
        for axis, part in enumerate(inside, start=1):
            strip[(slice(None), *before_it, slice(0, part.start), ...)] = 0.0
            strip[(slice(None), *before_it, slice(part.stop, shape[axis]), ...)] = 0.0
            before_it += (part,)
        strip[(slice(None), *inside, slice(None))] = x[(block.samples, *source, slice(None))]
        return strip

    def contract(
        self, x: Array, w: Array, windows: Windows, padding: PadWidths = (), bias: Array | None = None
    ) -> Array:
        """Windows of ``x`` times ``w``: ``y[n,o,g,f] = sum_kc x[n, o*stride + k*dilation, g, c] w[g, kc, f]``."""
        xp = self.xp
        groups, depth, features = w.shape
        n, cells, row_cells = x.shape[0], prod(windows.count), prod(windows.count[1:])
        y = xp.empty((n * cells, groups, features), dtype=x.dtype, device=device(x))
        blocks = self.blocks(n, windows.count[0], 4 * row_cells * groups * depth, x)

        def work(i: int) -> None:
            block = blocks[i]
            first = block.samples.start * cells + block.rows.start * row_cells
            last = (block.samples.stop - 1) * cells + block.rows.stop * row_cells
            columns = self._columns(x, padding, block, windows, groups)
            if groups == 1:
                self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])
            else:
                y[first:last, ...] = xp.permute_dims(self.matmul(columns, w), (1, 0, 2))
            if bias is not None:
                y[first:last, ...] += xp.reshape(bias, (groups, features))

        self.parallel(len(blocks) if n else 0, work)
        return xp.reshape(y, (n, *windows.count, groups * features))

    def contract_input_gradient(
        self, dy: Array, w: Array, windows: Windows, shape: tuple[int, ...], padding: PadWidths = ()
    ) -> Array:
        """Adjoint of `contract` in ``x``: each window's part of ``dy`` is added to the cells that the window read.

        ``shape`` is that of ``x``; cells that no window reads are 0.
        """
        xp = self.xp
        groups, channels = w.shape[0], shape[-1]
        adjoint = xp.matrix_transpose(w)
        padding = padding or ((0, 0),) * len(windows.count)
        wide = tuple(low + n + high for n, (low, high) in zip(shape[1:-1], padding, strict=True))
        inside = tuple(slice(low, low + n) for n, (low, _) in zip(shape[1:-1], padding, strict=True))
        dx = xp.empty(shape, dtype=dy.dtype, device=device(dy))
        blocks = self.blocks(shape[0], 1, 4 * prod(windows.count) * windows.cells * channels, dy)

        def work(i: int) -> None:
            samples = blocks[i].samples
            n = samples.stop - samples.start
            rows = self._rows(dy[samples, ...], groups)
            if groups == 1:
                columns = self.workspace("columns", (rows.shape[1], adjoint.shape[-1]), dy)
                columns = self.matmul(rows[0, ...], adjoint[0, ...], columns)
            else:
                columns = self.workspace("columns", (groups, rows.shape[1], adjoint.shape[-1]), dy)
                columns = self._join_groups_in_cells(self.matmul(rows, adjoint, columns), windows.cells)
            columns = xp.reshape(columns, (n, *windows.count, windows.cells, channels))
            sums = self.workspace("padded", (n, *wide, channels), dy)
            sums[...] = 0.0
            for k, index in enumerate(windows.slices()):
                sums[index] += columns[..., k, :]
            dx[samples, ...] = sums[(slice(None), *inside, slice(None))]

        self.parallel(len(blocks), work)
        return dx

    def contract_weight_gradient(
        self, x: Array, dy: Array, windows: Windows, groups: int, padding: PadWidths = ()
    ) -> Array:
        """Adjoint of `contract` in ``w``: columns of ``x`` times ``dy``, summed over windows and batch."""
        depth, features = windows.cells * x.shape[-1] // groups, dy.shape[-1] // groups
        if groups == 1 and 4 * depth * features > self.bytes_of_block(x):
            return self._weight_gradient_by_columns(x, dy, windows, padding)
        xp = self.xp
        n, row_cells = x.shape[0], prod(windows.count[1:])
        blocks = self.blocks(n, windows.count[0], 4 * row_cells * groups * depth, x)
        lanes = even_slices(len(blocks), min(len(blocks), PARTIAL_SUMS))
        parts = xp.empty((len(lanes), groups, depth, features), dtype=x.dtype, device=device(x))

        shape = (depth, features) if groups == 1 else (groups, depth, features)

        def work(lane: int) -> None:
            total = None
            for j in range(lanes[lane].start, lanes[lane].stop):
                columns = self._columns(x, padding, blocks[j], windows, groups)
                rows = self._rows(dy[(blocks[j].samples, blocks[j].rows, ...)], groups)
                part = self.workspace("sums" if total is None else "more", shape, x)
                if groups == 1:
                    self.contract_rows(columns[0, ...], rows[0, ...], part)
                else:
                    self.matmul(xp.matrix_transpose(columns), rows, part)
                if total is None:
                    total = part
                else:
                    total += part
            parts[lane, ...] = xp.reshape(total, (groups, depth, features))

        self.parallel(len(lanes), work)
        return sum_in_order(parts)

    def _weight_gradient_by_columns(self, x: Array, dy: Array, windows: Windows, padding: PadWidths) -> Array:
        """`contract_weight_gradient` of one group if the matrix is large: workers share its rows, not the batch."""
        xp = self.xp
        n, cells, features = x.shape[0], prod(windows.count), dy.shape[-1]
        depth = windows.cells * x.shape[-1]
        dw = xp.zeros((1, depth, features), dtype=x.dtype, device=device(x))
        chunks = even_slices(depth, -(-depth // 256))
        size = max(1, 8 * self.bytes_of_block(x) // max(1, 4 * cells * depth))
        for samples in even_slices(n, -(-n // size)) if n else []:
            count = samples.stop - samples.start
            columns = self.workspace("all columns", (count * cells, depth), x)
            blocks = self.blocks(count, 1, 4 * cells * depth, x)
            rows = self._rows(dy[samples, ...], 1)[0, ...]

            def fill(
                i: int, first: int = samples.start, columns: Array = columns, blocks: list[Block] = blocks
            ) -> None:
                part = blocks[i].samples
                block = Block(slice(first + part.start, first + part.stop), slice(0, windows.count[0]))
                found = self._columns(x, padding, block, windows, 1)
                columns[part.start * cells : part.stop * cells, :] = found[0, ...]

            def work(i: int, first: int = samples.start, columns: Array = columns, rows: Array = rows) -> None:
                left = xp.matrix_transpose(columns[:, chunks[i]])
                if first == 0:
                    self.matmul_into(dw, (0, chunks[i], slice(None)), left, rows)
                else:
                    dw[0, chunks[i], :] += self.matmul(left, rows)

            self.parallel(len(blocks), fill)
            self.parallel(len(chunks), work)
        return dw

    def _columns(self, x: Array, padding: PadWidths, block: Block, windows: Windows, groups: int) -> Array:
        """The im2col matrix of each group for a block, ``(G, n*O, K*C/G)``."""
        xp, channels = self.xp, x.shape[-1] // groups
        cells = self.windows(self.padded(x, padding, block, windows), block.windows(windows))
        rows = prod(cells.shape[: 1 + len(windows.count)])
        if groups > 1:
            cells = xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], groups, channels)), -2, 0)
        return self.flat(cells, (groups, rows, windows.cells * channels))

    def _rows(self, y: Array, groups: int) -> Array:
        """``(N, *O, G*F)`` to ``(G, N*O, F)``."""
        rows, features = prod(y.shape[:-1]), y.shape[-1]
        split = self.xp.reshape(y, (rows, groups, features // groups))
        return self.xp.permute_dims(split, (1, 0, 2))

    def _join_groups_in_cells(self, parts: Array, cells: int) -> Array:
        """``(G, M, K*C/G)`` to ``(M, K, C)``."""
        groups, rows, depth = parts.shape
        channels = depth // cells
        split = self.xp.reshape(parts, (groups, rows, cells, channels))
        return self.xp.reshape(self.xp.permute_dims(split, (1, 2, 0, 3)), (rows, cells, groups * channels))


def sum_in_order(parts: Array) -> Array:
    """Sum over the first axis, one entry after the other; overwrites the first."""
    total = parts[0, ...]
    for i in range(1, parts.shape[0]):
        total += parts[i, ...]
    return total
