"""Sums over rows: ``(R, C)`` to ``(C,)``.

A block of threads sums 32 columns. Each warp reads 32 neighbouring entries of a row at a time, the warps of a block
alternate over the rows, and their partial sums are added in a fixed tree. Many rows are divided among several blocks,
whose sums are then added by the same kernel.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ....common.types import Array
from .compilation import Source, address, loaded_cupy, rows

#: Columns and rows of a block of threads.
BLOCK_COLUMNS, BLOCK_ROWS = 32, 16
# Rows that one block sums, and the most blocks that divide the rows of a column.
ROWS_OF_BLOCK, MOST_PARTS = 1024, 128

#: Device function that adds one value from each row of a block; all threads get the sum of their column.
TREE_SUM = f"""
#define BLOCK_COLUMNS {BLOCK_COLUMNS}
#define BLOCK_ROWS {BLOCK_ROWS}
template <class V> __device__ inline V tree_sum(V value, V (*shared)[BLOCK_COLUMNS]) {{
    shared[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = BLOCK_ROWS / 2; half > 0; half /= 2) {{
        if (threadIdx.y < half)
            shared[threadIdx.y][threadIdx.x] += shared[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }}
    const V sum = shared[0][threadIdx.x];
    __syncthreads();
    return sum;
}}
"""
SOURCE = Source(
    TREE_SUM
    + """
// Sums of parts of the rows of x (R, C), whose row stride is step; a part has length rows: (parts, C)
extern "C" __global__ void sum_rows(const T* x, T* y, Index step, Index length, int channels, Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int c = blockIdx.x * BLOCK_COLUMNS + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    T sum = 0;
    if (c < channels)
        for (Index r = first + threadIdx.y; r < last; r += BLOCK_ROWS) sum += x[r * step + c];
    sum = tree_sum(sum, shared);
    if (threadIdx.y == 0 && c < channels) y[blockIdx.y * (Index)channels + c] = sum;
}
"""
)


def split(count: int) -> tuple[int, int]:
    """Number of parts into which ``count`` rows are divided, and the rows of a part."""
    parts = min(MOST_PARTS, -(-count // ROWS_OF_BLOCK)) or 1
    length = -(-count // parts) or 1
    return -(-count // length) or 1, length


class RowSums:
    """Sum over all axes but the last."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """``x (*R, C)`` to ``(C,)``."""
        cupy = loaded_cupy()
        x, step = rows(x)
        count, channels = x.shape
        while True:
            parts, length = split(count)
            y = cupy.empty((parts, channels) if parts > 1 else channels, x.dtype)
            grid = (-(-channels // BLOCK_COLUMNS), parts)
            sizes = (np.int64(step), np.int64(length), channels, np.int64(count))
            if channels:
                SOURCE.launch("sum_rows", self.dtype, grid, (BLOCK_COLUMNS, BLOCK_ROWS), address(x), y, *sizes)
            if parts == 1:
                return y
            x, step, count = y, channels, parts


@lru_cache(maxsize=8)
def prepare(problem: None, dtype: str, ops: Any) -> RowSums:
    """Kernels for sums over rows."""
    return RowSums(dtype)
