"""Sums over rows, ``(R, C)`` to ``(C,)``.

Thirty-two columns at a time: a warp reads their entries in a row together, the warps of a block take turns at its rows,
and add up what they have in a fixed tree. Where rows are many they are shared by several blocks, whose sums are added
up in the same way afterwards.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ....common.types import Array
from .source import Source, address, library, rows

#: Columns and rows of a block of threads.
WIDE, HIGH = 32, 16
# Rows that a block adds up by itself, and the most blocks that share the rows.
ALONE, MOST = 1024, 128

#: Adds up a value of each of the ``HIGH`` rows of a block; all threads of the first row get the sum.
TREE = f"""
#define WIDE {WIDE}
#define HIGH {HIGH}
template <class V> __device__ inline V tree(V value, V (*shared)[WIDE]) {{
    shared[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = HIGH / 2; half > 0; half /= 2) {{
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
    TREE
    + """
// (R, C), a row apart from the next by step, in parts of length rows: (parts, C)
extern "C" __global__ void sum_rows(const T* x, T* y, Index step, Index length, int channels, Index count)
{
    __shared__ T shared[HIGH][WIDE];
    const int c = blockIdx.x * WIDE + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    T sum = 0;
    if (c < channels)
        for (Index r = first + threadIdx.y; r < last; r += HIGH) sum += x[r * step + c];
    sum = tree(sum, shared);
    if (threadIdx.y == 0 && c < channels) y[blockIdx.y * (Index)channels + c] = sum;
}
"""
)


def split(count: int) -> tuple[int, int]:
    """In how many parts ``count`` rows are shared by blocks, and the rows of a part."""
    parts = min(MOST, -(-count // ALONE)) or 1
    length = -(-count // parts) or 1
    return -(-count // length) or 1, length


class SumRows:
    """Sum over all axes but the last."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """``x (*R, C)`` to ``(C,)``."""
        cupy = library()
        x, step = rows(x)
        count, channels = x.shape
        while True:
            parts, length = split(count)
            y = cupy.empty((parts, channels) if parts > 1 else channels, x.dtype)
            grid = (-(-channels // WIDE), parts)
            sizes = (np.int64(step), np.int64(length), channels, np.int64(count))
            if channels:
                SOURCE.launch("sum_rows", self.dtype, grid, (WIDE, HIGH), address(x), y, *sizes)
            if parts == 1:
                return y
            x, step, count = y, channels, parts


@lru_cache(maxsize=8)
def prepare(dtype: str, ops: Any) -> SumRows:
    """Kernels for sums over rows."""
    return SumRows(dtype)
