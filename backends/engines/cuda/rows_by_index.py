"""Sums of the rows that have the same index: ``(R, C)`` and ``(R,)`` to ``(count, C)``; for gradients of embeddings.

A block of threads computes some columns of one row of the result. It reads the indices of all rows, a tile at a time,
and adds the rows that have its own index in order. Tiles in which no row has it cost one comparison for each thread.
Sums are in double precision, because rows are added one after the other.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ....common.types import Array
from .compilation import Source, address, dense, loaded_cupy, rows

#: Threads of a block: the columns that it computes, and the rows of a tile.
TILE = 128

SOURCE = Source(
    f"#define TILE {TILE}\n"
    + """
// Sums of the rows of x (R, C), whose row stride is step, with index i in row i of y (count, C)
extern "C" __global__ void sum_rows_at(const T* x, const Index* index, T* y, Index step, Index length, int channels)
{
    __shared__ Index tile[TILE];
    __shared__ int any;
    const Index i = blockIdx.x;
    const int c = blockIdx.y * TILE + threadIdx.x;
    double sum = 0;
    for (Index first = 0; first < length; first += TILE) {
        const int size = length - first < TILE ? (int)(length - first) : TILE;
        if (threadIdx.x == 0) any = 0;
        __syncthreads();
        if (threadIdx.x < size) {
            tile[threadIdx.x] = index[first + threadIdx.x];
            if (tile[threadIdx.x] == i) any = 1;
        }
        __syncthreads();
        if (any && c < channels)
            for (int r = 0; r < size; ++r)
                if (tile[r] == i) sum += x[(first + r) * step + c];
        __syncthreads();
    }
    if (c < channels) y[i * channels + c] = (T)sum;
}
"""
)


class RowsByIndex:
    """`Operations.sum_rows_at`."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, x: Array, index: Array, count: int) -> Array:
        """``x (R, C)`` and ``index (R,)`` to ``(count, C)``."""
        cupy = loaded_cupy()
        x, step = rows(x)
        index = dense(index.astype(cupy.int64, copy=False))
        length, channels = x.shape
        y = cupy.empty((count, channels), x.dtype)
        if count and channels:
            grid = (count, -(-channels // TILE))
            sizes = (np.int64(step), np.int64(length), channels)
            SOURCE.launch("sum_rows_at", self.dtype, grid, (TILE,), address(x), index, y, *sizes)
        return y


@lru_cache(maxsize=8)
def prepare(problem: None, dtype: str, ops: Any) -> RowsByIndex:
    """Kernel for sums of rows by index."""
    return RowsByIndex(dtype)
