"""Adaptive pools: one thread for each bin forward, and for each cell of the input backward.

Along an axis of ``n`` cells, bin ``i`` of ``m`` contains the cells from ``floor(i n / m)`` up to, but not including,
``ceil((i + 1) n / m)``; cell ``j`` is in the bins from ``floor(j m / n)`` up to, but not including,
``ceil((j + 1) m / n)``.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from .compilation import MOST_ENTRIES, Source, address, loaded_cupy
from .prelude import MOST_AXES, strides

SOURCE = Source(
    """
// Cells of the input and bins of the output along each axis.
struct Bins { int input[3], output[3]; };

__device__ inline int low(int i, int n, int m) { return (int)((Index)i * n / m); }
__device__ inline int high(int i, int n, int m) { return (int)(((Index)(i + 1) * n + m - 1) / m); }

extern "C" __global__ void means(const T* x, T* y, Strides at, Bins b, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = y + i;
    const int c = part(i, channels);
    const int o2 = part(i, b.output[2]), o1 = part(i, b.output[1]), o0 = part(i, b.output[0]);
    const int f0 = low(o0, b.input[0], b.output[0]), l0 = high(o0, b.input[0], b.output[0]);
    const int f1 = low(o1, b.input[1], b.output[1]), l1 = high(o1, b.input[1], b.output[1]);
    const int f2 = low(o2, b.input[2], b.output[2]), l2 = high(o2, b.input[2], b.output[2]);
    const T* from = x + i * at.n + c * at.c;
    T sum = 0;
    for (int i0 = f0; i0 < l0; ++i0)
        for (int i1 = f1; i1 < l1; ++i1) {
            T row = 0;
            for (int i2 = f2; i2 < l2; ++i2) row += from[along(at, i0, i1, i2)];
            sum += row;
        }
    *to = sum / ((T)(l0 - f0) * (T)(l1 - f1) * (T)(l2 - f2));
}

extern "C" __global__ void means_back(const T* dy, T* dx, Strides up, Bins b, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = dx + i;
    const int c = part(i, channels);
    const int i2 = part(i, b.input[2]), i1 = part(i, b.input[1]), i0 = part(i, b.input[0]);
    const T* from = dy + i * up.n + c * up.c;
    T sum = 0;
    for (int o0 = low(i0, b.output[0], b.input[0]); o0 < high(i0, b.output[0], b.input[0]); ++o0)
        for (int o1 = low(i1, b.output[1], b.input[1]); o1 < high(i1, b.output[1], b.input[1]); ++o1)
            for (int o2 = low(i2, b.output[2], b.input[2]); o2 < high(i2, b.output[2], b.input[2]); ++o2) {
                const int n0 = high(o0, b.input[0], b.output[0]) - low(o0, b.input[0], b.output[0]);
                const int n1 = high(o1, b.input[1], b.output[1]) - low(o1, b.input[1], b.output[1]);
                const int n2 = high(o2, b.input[2], b.output[2]) - low(o2, b.input[2], b.output[2]);
                sum += from[along(up, o0, o1, o2)] / ((T)n0 * (T)n1 * (T)n2);
            }
    *to = sum;
}

// The first maximum of each bin, and its row-major index within the spatial axes; NaN counts as the largest.
extern "C" __global__ void maxima(const T* x, T* y, long long* index, Strides at, Bins b, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Index to = i;
    const int c = part(i, channels);
    const int o2 = part(i, b.output[2]), o1 = part(i, b.output[1]), o0 = part(i, b.output[0]);
    const int f0 = low(o0, b.input[0], b.output[0]), l0 = high(o0, b.input[0], b.output[0]);
    const int f1 = low(o1, b.input[1], b.output[1]), l1 = high(o1, b.input[1], b.output[1]);
    const int f2 = low(o2, b.input[2], b.output[2]), l2 = high(o2, b.input[2], b.output[2]);
    const T* from = x + i * at.n + c * at.c;
    bool found = false;
    T most = 0;
    long long where = 0;
    for (int i0 = f0; i0 < l0; ++i0)
        for (int i1 = f1; i1 < l1; ++i1)
            for (int i2 = f2; i2 < l2; ++i2) {
                const T each = from[along(at, i0, i1, i2)];
                if (found && (each <= most || most != most)) continue;
                most = each;
                where = ((long long)i0 * b.input[1] + i1) * b.input[2] + i2;
                found = true;
            }
    y[to] = most;
    index[to] = where;
}

extern "C" __global__ void maxima_back(
    const T* dy, const long long* index, T* dx, Strides up, Strides at, Bins b, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = dx + i;
    const int c = part(i, channels);
    const int i2 = part(i, b.input[2]), i1 = part(i, b.input[1]), i0 = part(i, b.input[0]);
    const long long here = ((long long)i0 * b.input[1] + i1) * b.input[2] + i2;
    T sum = 0;
    for (int o0 = low(i0, b.output[0], b.input[0]); o0 < high(i0, b.output[0], b.input[0]); ++o0)
        for (int o1 = low(i1, b.output[1], b.input[1]); o1 < high(i1, b.output[1], b.input[1]); ++o1)
            for (int o2 = low(i2, b.output[2], b.input[2]); o2 < high(i2, b.output[2], b.input[2]); ++o2)
                if (index[i * at.n + along(at, o0, o1, o2) + c * at.c] == here)
                    sum += dy[i * up.n + along(up, o0, o1, o2) + c * up.c];
    *to = sum;
}
"""
)
BINS = np.dtype([("input", np.int32, (MOST_AXES,)), ("output", np.int32, (MOST_AXES,))])


class AdaptivePoolKernels:
    """Averages or maxima over bins, and their gradients; arrays are ``(N, *S, C)``."""

    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], dtype: str) -> None:
        self.shape, self.sizes, self.dtype = shape, sizes, dtype
        ones = (1,) * (MOST_AXES - len(sizes))
        self.bins = np.array((ones + shape[1:-1], ones + sizes), dtype=BINS)

    def averages(self, x: Array) -> Array:
        """The averages."""
        y = loaded_cupy().empty((self.shape[0], *self.sizes, self.shape[-1]), x.dtype)
        SOURCE.each("means", self.dtype, y.size, address(x), y, strides(x), self.bins, self.shape[-1])
        return y

    def averages_backward(self, dy: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx = loaded_cupy().empty(self.shape, dy.dtype)
        SOURCE.each("means_back", self.dtype, dx.size, address(dy), dx, strides(dy), self.bins, self.shape[-1])
        return dx

    def maxima(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and their row-major indices within the spatial axes."""
        y = loaded_cupy().empty((self.shape[0], *self.sizes, self.shape[-1]), x.dtype)
        index = loaded_cupy().empty(y.shape, np.int64)
        SOURCE.each("maxima", self.dtype, y.size, address(x), y, index, strides(x), self.bins, self.shape[-1])
        return y, index

    def maxima_backward(self, dy: Array, index: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx = loaded_cupy().empty(self.shape, dy.dtype)
        arguments = (strides(dy), strides(index), self.bins, self.shape[-1])
        SOURCE.each("maxima_back", self.dtype, dx.size, address(dy), address(index), dx, *arguments)
        return dx


@lru_cache(maxsize=1024)
def prepare(problem: tuple[tuple[int, ...], tuple[int, ...]], dtype: str, ops: Any) -> AdaptivePoolKernels | None:
    """Kernels for an input ``(N, *S, C)`` of that shape and a number of bins for each axis."""
    shape, sizes = problem
    fits = len(sizes) <= MOST_AXES and max(prod(shape), shape[0] * prod(sizes) * shape[-1]) < MOST_ENTRIES
    return AdaptivePoolKernels(shape, sizes, dtype) if fits else None
