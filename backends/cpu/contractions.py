"""Contractions for NumPy: matrix products by its BLAS, on one thread and in the sizes that OpenBLAS computes fastest.

A product is cut by its shape alone, and BLAS runs on one thread within each part, so that results have the same bits
for every number of workers.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...common.types import Array
from ..contractions.contractions import Contractions
from ..contractions.windows import Windows
from ..execution.blocks import even_slices
from ..execution.one_blas_thread import one_blas_thread
from ..recording.calls import empty
from ..recording.opaque import one_call
from .execution import CHUNK_BYTES

# OpenBLAS copies ("packs") the factors of a product that has this many multiplications or more. Without the copies a
# product is up to twice as fast if two of its sizes are small.
MOST_UNPACKED = 1_000_000
# Multiplications in a worker's part of a matrix product: some 0.2 ms, where waking a worker takes up to 0.1 ms.
PART_MULTIPLICATIONS = 1 << 23


class NumpyContractions(Contractions):
    """Products on one BLAS thread, shared by worker threads if they are large; windows as a strided view."""

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        if a.ndim == b.ndim == 2 and _never_threads(a, b):
            return np.matmul(a, b, out=out)
        rows = (
            _unpacked_rows(b.shape, 32)
            if a.ndim == b.ndim == 2 and a.flags.c_contiguous and b.flags.c_contiguous
            else 0
        )
        with one_blas_thread:
            if not rows or len(a) < 2 * rows:
                return np.matmul(a, b, out=out)
            if out is None:
                out = empty((len(a), b.shape[1]), a.dtype)
            whole = len(a) // rows * rows
            np.matmul(a[:whole].reshape(-1, rows, a.shape[1]), b, out=out[:whole].reshape(-1, rows, b.shape[1]))
            if whole < len(a):
                np.matmul(a[whole:], b, out=out[whole:])
            return out

    def matmul_into(self, target: Array, index: tuple[slice | int, ...], a: Array, b: Array) -> None:
        self.matmul(a, b, target[index])

    def product(self, a: Array, b: Array) -> Array:
        rows, columns = a.shape[0], b.shape[1]
        shares = min(rows * columns * a.shape[1] // PART_MULTIPLICATIONS, 16)
        if shares < 2:
            return self.matmul(a, b)
        y = empty((rows, columns), a.dtype)
        # A power of two, to divide evenly among as many workers.
        slices = even_slices(max(rows, columns), 1 << shares.bit_length() - 1)

        def work(i: int) -> None:
            if rows > columns:
                np.matmul(a[slices[i]], b, out=y[slices[i]])
            else:
                np.matmul(a, b[:, slices[i]], out=y[:, slices[i]])

        self.parallel(len(slices), work)
        return y

    def contract_rows(self, x: Array, dy: Array, out: Array | None = None) -> Array:
        rows = _unpacked_rows((x.shape[1], dy.shape[1]), 64) if x.flags.c_contiguous and dy.flags.c_contiguous else 0
        with one_blas_thread:
            if not rows or len(x) < 2 * rows:
                return self.product(x.T, dy) if out is None else np.matmul(x.T, dy, out=out)
            whole = len(x) // rows * rows
            parts = self.workspace("sums of rows", (whole // rows, x.shape[1], dy.shape[1]), x)
            left = x[:whole].reshape(-1, rows, x.shape[1]).transpose(0, 2, 1)
            np.matmul(left, dy[:whole].reshape(-1, rows, dy.shape[1]), out=parts)
            total = np.sum(parts, axis=0, out=out)
            if whole < len(x):
                total += np.matmul(x[whole:].T, dy[whole:])
            return total

    def sum_rows(self, x: Array) -> Array:
        columns = x.shape[1]
        if x.size < CHUNK_BYTES // 16 or not x.flags.c_contiguous:
            suits = x.flags.c_contiguous and x.flags.aligned and len(x) and columns > 1
            prepared = self.prepare("sum of rows", "in order", x.dtype.name) if suits else None
            return np.sum(x, axis=0) if prepared is None else prepared(x)
        prepared = self.prepare("sum of rows", None, x.dtype.name)
        if prepared is not None:
            total: Array = prepared(x)
            return total
        # Short rows are joined, and multiplied by ones: that is ten times faster than a sum over short rows.
        joined = max(1, 512 // columns)
        blocks = even_slices(len(x) // joined, x.nbytes // (4 * CHUNK_BYTES))
        parts = empty((len(blocks), 1, joined * columns), x.dtype)

        def work(i: int) -> None:
            rows = x[blocks[i].start * joined : blocks[i].stop * joined].reshape(-1, joined * columns)
            np.matmul(np.ones((1, len(rows)), x.dtype), rows, out=parts[i])

        self.parallel(len(blocks), work)
        total = parts.reshape(-1, columns).sum(axis=0)
        rest = x[len(x) // joined * joined :]
        return total + rest.sum(axis=0) if len(rest) else total

    def sum_rows_at(self, x: Array, index: Array, count: int) -> Array:
        return one_call(_sum_rows_at, x, index, count=count)

    def windows(self, x: Array, windows: Windows) -> Array:
        spatial = x.strides[1:-1]
        apart = (s * n for s, n in zip(spatial, windows.stride, strict=True))
        within = (s * n for s, n in zip(spatial, windows.dilation, strict=True))
        return one_call(
            as_strided,
            x,
            shape=(x.shape[0], *windows.count, *windows.kernel, x.shape[-1]),
            strides=(x.strides[0], *apart, *within, x.strides[-1]),
            writeable=False,
        )


def _sum_rows_at(x: Array, index: Array, count: int) -> Array:
    """`Contractions.sum_rows_at`, added in float64: `numpy.add.reduceat` adds one row after the other."""
    y = np.zeros((count, x.shape[1]), x.dtype)
    order = np.argsort(index, kind="stable")
    first, last = np.searchsorted(index[order], (0, count))
    order = order[first:last]
    if len(order):
        ordered = index[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        y[ordered[starts]] = np.add.reduceat(x[order].astype(np.float64), starts, axis=0)
    return y


def _unpacked_rows(sizes: tuple[int, int], least: int) -> int:
    """The most rows of a product for which OpenBLAS packs nothing; 0 if fewer than ``least``."""
    rows = min(256, (MOST_UNPACKED - 1) // max(1, sizes[0] * sizes[1]))
    return rows if rows >= least else 0


def _never_threads(a: Array, b: Array) -> bool:
    """Whether the product of two matrices is so small that OpenBLAS uses one thread in any case."""
    rows, columns = int(a.shape[0]), int(b.shape[1])
    return rows * columns * int(a.shape[1]) < (9216 if rows == 1 or columns == 1 else 262144)
