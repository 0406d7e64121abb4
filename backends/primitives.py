"""The seam between layers and speed.

A convolution is one bilinear map, `contract`: windows of the input times a matrix. Its two adjoints are
the gradients. Everything that makes a convolution fast or exact happens between `windows` (cutting the
input) and the product, so both stand here and nowhere else: a backend that can cut windows without
copying overrides `windows`; exact numerics overrides the three contractions, because splitting a number
commutes with cutting windows and is kernel-size times cheaper before it. The layers call these by name
and never learn which one they got.

The base class uses the standard alone and serves any conforming namespace. Columns are made for a block
of the batch at a time: the column buffer is ``prod(kernel)`` times the input, and one for the whole batch
falls out of every cache. Blocks depend on shapes only, so their sums have one order.
"""

from collections.abc import Iterator
from math import prod

from array_api_compat import device

from .types import Array, Namespace
from .windows import Windows


class Primitives:
    """Contractions of windows, in functions of the Array API standard.

    Shapes: input ``x (N, *S, C)``, output ``y (N, *O, F)``, matrix ``w (G, K*C/G, F/G)`` for ``G`` groups of
    channels and ``K`` kernel cells, cells varying slower than channels.

    Parameters
    ----------
    xp : namespace
        The Array API namespace to compute in.
    """

    block_bytes = 1 << 22

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp

    def windows(self, x: Array, windows: Windows) -> Array:
        """Cut ``x (N, *S, C)`` into windows: ``(N, *O, *kernel, C)``."""
        cells = self.xp.stack([x[index] for index in windows.slices()], axis=-2)
        return self.xp.reshape(cells, (x.shape[0], *windows.count, *windows.kernel, x.shape[-1]))

    def contract(self, x: Array, w: Array, windows: Windows) -> Array:
        """Windows of ``x`` times ``w``: ``y[n,o,g,f] = sum_kc x[n, o*stride + k*dilation, g, c] w[g, kc, f]``."""
        xp = self.xp
        groups, _, features = w.shape
        parts = []
        for block in self._blocks(x.shape, windows):
            columns = self._columns(x[block, ...], windows, groups)
            rows = self._join_groups(xp.matmul(columns, w))
            n = block.stop - block.start
            parts.append(xp.reshape(rows, (n, *windows.count, groups * features)))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def contract_input_gradient(self, dy: Array, w: Array, windows: Windows, shape: tuple[int, ...]) -> Array:
        """Adjoint of `contract` in ``x``: each window's share of ``dy`` added back where it was read.

        ``shape`` is that of ``x``; cells that no window reads get 0.
        """
        xp = self.xp
        groups = w.shape[0]
        adjoint = xp.matrix_transpose(w)
        parts = []
        for block in self._blocks(shape, windows):
            n = block.stop - block.start
            columns = self._join_groups_in_cells(xp.matmul(self._rows(dy[block, ...], groups), adjoint), windows.cells)
            columns = xp.reshape(columns, (n, *windows.count, windows.cells, shape[-1]))
            dx = xp.zeros((n, *shape[1:]), dtype=dy.dtype, device=device(dy))
            for k, index in enumerate(windows.slices()):
                dx[index] += columns[..., k, :]
            parts.append(dx)
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def contract_weight_gradient(self, x: Array, dy: Array, windows: Windows, groups: int) -> Array:
        """Adjoint of `contract` in ``w``: columns of ``x`` times ``dy``, summed over windows and batch."""
        xp = self.xp
        dw = None
        for block in self._blocks(x.shape, windows):
            columns = self._columns(x[block, ...], windows, groups)
            part = xp.matmul(xp.matrix_transpose(columns), self._rows(dy[block, ...], groups))
            dw = part if dw is None else dw + part
        return dw

    def contract_rows(self, x: Array, dy: Array) -> Array:
        """``x (R, A)`` transposed times ``dy (R, B)``: a sum over rows, which are those of the batch."""
        return self.xp.matmul(self.xp.matrix_transpose(x), dy)

    def total(self, x: Array, axes: tuple[int, ...]) -> Array:
        """Sum over axes, which stay with size 1: within each sample first, then over the samples.

        Libraries add up the rows of a channels-last array one after the other, and the rounding error grows with their
        number: in float32 the mean of 128 samples of 32 x 32 cells around 10 is wrong by 1.3e-4 in one step and by
        7e-6 in two, in the same time.
        """
        xp, within = self.xp, tuple(axis for axis in axes if axis)
        if within:
            x = xp.sum(x, axis=within, keepdims=True)
        return xp.sum(x, axis=0, keepdims=True) if 0 in axes else x

    def _blocks(self, shape: tuple[int, ...], windows: Windows) -> Iterator[slice]:
        """Slices of the batch whose columns fit `block_bytes`; at least one, so that N = 0 works."""
        n = shape[0]
        columns = 4 * prod(windows.count) * windows.cells * shape[-1]
        size = max(1, self.block_bytes // max(columns, 1))
        for start in range(0, max(n, 1), size):
            yield slice(start, min(start + size, n))

    def _columns(self, x: Array, windows: Windows, groups: int) -> Array:
        """The im2col matrix of each group, ``(G, N*O, K*C/G)``."""
        xp = self.xp
        cut = self.windows(x, windows)
        rows, cells, channels = x.shape[0] * prod(windows.count), windows.cells, x.shape[-1]
        if groups == 1:
            return xp.reshape(cut, (1, rows, cells * channels))
        split = xp.reshape(cut, (x.shape[0], *windows.count, *windows.kernel, groups, channels // groups))
        split = xp.moveaxis(split, -2, 0)
        return xp.reshape(split, (groups, rows, cells * (channels // groups)))

    def _rows(self, y: Array, groups: int) -> Array:
        """``(N, *O, G*F)`` to ``(G, N*O, F)``."""
        rows, features = prod(y.shape[:-1]), y.shape[-1]
        split = self.xp.reshape(y, (rows, groups, features // groups))
        return self.xp.permute_dims(split, (1, 0, 2))

    def _join_groups(self, parts: Array) -> Array:
        """``(G, M, F)`` to ``(M, G*F)``."""
        groups, rows, features = parts.shape
        return self.xp.reshape(self.xp.permute_dims(parts, (1, 0, 2)), (rows, groups * features))

    def _join_groups_in_cells(self, parts: Array, cells: int) -> Array:
        """``(G, M, K*C/G)`` to ``(M, K, C)``."""
        groups, rows, depth = parts.shape
        channels = depth // cells
        split = self.xp.reshape(parts, (groups, rows, cells, channels))
        return self.xp.reshape(self.xp.permute_dims(split, (1, 2, 0, 3)), (rows, cells, groups * channels))
