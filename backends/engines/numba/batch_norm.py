"""Batch normalisation of rows of channels: statistics, normalisation and their gradients, each in one pass."""

from typing import Any

import numpy as np

from ....common.types import Array
from .compiler import INT, READ1, READ2, WRITE1, WRITE2, compiled, contiguous

# Four rows are added pairwise before they are added to the sums: the sums are read and written less often, and round
# less.


@compiled(READ2, INT, WRITE1, WRITE1, WRITE1)
def _column_moments(x: Any, step: Any, mean: Any, sums: Any, squares: Any) -> None:
    rows, columns = x.shape
    sampled = np.float32((rows + step - 1) // step)
    for c in range(columns):
        mean[c] = sums[c] = squares[c] = np.float32(0.0)
    for r in range(0, rows, step):
        for c in range(columns):
            mean[c] += x[r, c]
    for c in range(columns):
        mean[c] /= sampled
    whole = rows // 4 * 4
    for r in range(0, whole, 4):
        for c in range(columns):
            t0, t1, t2, t3 = x[r, c] - mean[c], x[r + 1, c] - mean[c], x[r + 2, c] - mean[c], x[r + 3, c] - mean[c]
            sums[c] += (t0 + t1) + (t2 + t3)
            squares[c] += (t0 * t0 + t1 * t1) + (t2 * t2 + t3 * t3)
    for r in range(whole, rows):
        for c in range(columns):
            t = x[r, c] - mean[c]
            sums[c] += t
            squares[c] += t * t


@compiled(READ2, READ1, READ1, READ1, WRITE2)
def _normalise(x: Any, centre: Any, scale: Any, shift: Any, out: Any) -> None:
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] = (x[r, c] - centre[c]) * scale[c] + shift[c]


@compiled(READ2, READ2, READ1, WRITE1, WRITE1)
def _column_sums(dy: Any, x: Any, centre: Any, sums: Any, products: Any) -> None:
    rows, columns = x.shape
    for c in range(columns):
        sums[c] = products[c] = np.float32(0.0)
    whole = rows // 4 * 4
    for r in range(0, whole, 4):
        for c in range(columns):
            d0, d1, d2, d3 = dy[r, c], dy[r + 1, c], dy[r + 2, c], dy[r + 3, c]
            near = centre[c]
            sums[c] += (d0 + d1) + (d2 + d3)
            p0, p1 = d0 * (x[r, c] - near), d1 * (x[r + 1, c] - near)
            products[c] += (p0 + p1) + (d2 * (x[r + 2, c] - near) + d3 * (x[r + 3, c] - near))
    for r in range(whole, rows):
        for c in range(columns):
            sums[c] += dy[r, c]
            products[c] += dy[r, c] * (x[r, c] - centre[c])


@compiled(READ2, READ2, READ1, READ1, READ1, READ1, WRITE2)
def _normalise_backward(dy: Any, x: Any, centre: Any, slope: Any, offset: Any, scale: Any, out: Any) -> None:
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] = ((x[r, c] - centre[c]) * slope[c] + offset[c] + dy[r, c]) * scale[c]


def column_moments(x: Array, step: int, mean: Array, sums: Array, squares: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _column_moments(contiguous(x), step, mean, sums, squares)


def normalise(x: Array, centre: Array, scale: Array, shift: Array, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _normalise(contiguous(x), centre, scale, shift, out)


def column_sums(dy: Array, x: Array, centre: Array, sums: Array, products: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _column_sums(contiguous(dy), contiguous(x), centre, sums, products)


def normalise_backward(
    dy: Array, x: Array, centre: Array, slope: Array, offset: Array, scale: Array, out: Array
) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _normalise_backward(contiguous(dy), contiguous(x), centre, slope, offset, scale, out)
