"""Depthwise convolution: one thread for each entry of the output, or of the input's gradient.

For the weight's gradient, blocks of threads divide the windows of a cell of the kernel among them; their partial sums
are added by a second kernel.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from . import row_sums
from .compilation import MOST_ENTRIES, Source, address, dense, loaded_cupy
from .elementwise import rectify
from .im2col import ConvolutionProblem
from .prelude import MOST_AXES, geometry, strides
from .row_sums import BLOCK_COLUMNS, BLOCK_ROWS, TREE_SUM, RowSums, split

SOURCE = Source(
    TREE_SUM
    + """
// y (N, O, F) of x (N, S, C) and weight (F, K); one thread for each entry of y
extern "C" __global__ void depthwise(
    const T* x, const T* weight, const T* bias, T* y, Strides at, Geometry g, int features, int times, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = y + i;
    const int f = part(i, features);
    const int o2 = part(i, g.output[2]), o1 = part(i, g.output[1]), o0 = part(i, g.output[0]);
    const T* from = x + i * at.n + (f / times) * at.c;
    const T* w = weight + f * (Index)(g.kernel[0] * g.kernel[1] * g.kernel[2]);
    T sum = 0;
    each_cell(g, o0, o1, o2, [&](int k, int i0, int i1, int i2, bool inside) {
        if (inside) sum += from[along(at, i0, i1, i2)] * w[k];
    });
    *to = sum + (bias ? bias[f] : (T)0);
}

// dx (N, S, C) of dy (N, O, F) and weight (F, K); one thread for each entry of dx
extern "C" __global__ void depthwise_input(
    const T* dy, const T* weight, T* dx, Strides at, Geometry g, int channels, int times, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = dx + i;
    const int c = part(i, channels);
    const int i2 = part(i, g.input[2]), i1 = part(i, g.input[1]), i0 = part(i, g.input[0]);
    const int cells = g.kernel[0] * g.kernel[1] * g.kernel[2];
    T sum = 0;
    for (int f = c * times; f < (c + 1) * times; ++f) {
        const T *from = dy + i * at.n + f * at.c, *w = weight + f * (Index)cells;
        each_window(g, i0, i1, i2, [&](int k, int o0, int o1, int o2) { sum += from[along(at, o0, o1, o2)] * w[k]; });
    }
    *to = sum;
}

// Partial sums y (P, F, K) of dweight, each over length windows; one block for 32 features, a part and a cell
extern "C" __global__ void depthwise_weight(
    const T* x, const T* dy, T* y, Strides at, Strides up, Geometry g, int features, int times, Index length,
    Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int f = blockIdx.x * BLOCK_COLUMNS + threadIdx.x, k = blockIdx.z;
    const int cells = g.kernel[0] * g.kernel[1] * g.kernel[2];
    const int k2 = k % g.kernel[2], k1 = k / g.kernel[2] % g.kernel[1], k0 = k / (g.kernel[2] * g.kernel[1]);
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    T sum = 0;
    if (f < features)
        for (Index r = first + threadIdx.y; r < last; r += BLOCK_ROWS) {
            Index i = r;
            const int o2 = part(i, g.output[2]), o1 = part(i, g.output[1]), o0 = part(i, g.output[0]);
            const int i0 = o0 * g.stride[0] + k0 * g.dilation[0] - g.before[0];
            const int i1 = o1 * g.stride[1] + k1 * g.dilation[1] - g.before[1];
            const int i2 = o2 * g.stride[2] + k2 * g.dilation[2] - g.before[2];
            if (i0 < 0 || i0 >= g.input[0] || i1 < 0 || i1 >= g.input[1] || i2 < 0 || i2 >= g.input[2]) continue;
            sum += x[i * at.n + along(at, i0, i1, i2) + (f / times) * at.c]
                * dy[i * up.n + along(up, o0, o1, o2) + f * up.c];
        }
    sum = tree_sum(sum, shared);
    if (threadIdx.y == 0 && f < features) y[(blockIdx.y * (Index)features + f) * cells + k] = sum;
}
"""
)


class DepthwiseKernels:
    """Forward and both gradients of a convolution with a group for each channel."""

    def __init__(self, problem: ConvolutionProblem, sum_rows: RowSums) -> None:
        self.problem, self.sum_rows = problem, sum_rows
        self.cells, self.times = problem.windows.cells, problem.features // problem.channels
        self.geometry = geometry(problem.spatial, problem.windows, problem.padding)

    def pack(self, weight: Array) -> None:
        """Nothing: kernels read the weight as it is."""

    def forward(self, x: Array, weight: Array, bias: Array | None, packed: None = None, relu: bool = False) -> Array:
        """``y (N, *O, F)``, or its ReLU."""
        cupy, p = loaded_cupy(), self.problem
        y = cupy.empty((p.samples, *p.windows.count, p.features), x.dtype)
        weight = dense(weight.reshape(p.features, self.cells))
        arguments = (strides(x), self.geometry, p.features, self.times)
        SOURCE.each("depthwise", p.dtype, y.size, address(x), weight, dense(bias), y, *arguments)
        return rectify(y) if relu else y

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        """``dx (N, *S, C)``."""
        cupy, p = loaded_cupy(), self.problem
        dx = cupy.empty((p.samples, *p.spatial, p.channels), dy.dtype)
        weight = dense(weight.reshape(p.features, self.cells))
        arguments = (strides(dy), self.geometry, p.channels, self.times)
        SOURCE.each("depthwise_input", p.dtype, dx.size, address(dy), weight, dx, *arguments)
        return dx

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, 1, *K)``."""
        cupy, p = loaded_cupy(), self.problem
        count = p.samples * prod(p.windows.count)
        parts, length = split(count)
        y = cupy.empty((parts, p.features * self.cells), x.dtype)
        arguments = (strides(x), strides(dy), self.geometry, p.features, self.times, np.int64(length), np.int64(count))
        grid = (-(-p.features // BLOCK_COLUMNS), parts, self.cells)
        SOURCE.launch(
            "depthwise_weight", p.dtype, grid, (BLOCK_COLUMNS, BLOCK_ROWS), address(x), address(dy), y, *arguments
        )
        total = y[0] if parts == 1 else self.sum_rows(y)
        return total.reshape(p.features, 1, *p.windows.kernel)


@lru_cache(maxsize=1024)
def prepare(problem: ConvolutionProblem, dtype: str, ops: Any) -> DepthwiseKernels | None:
    """Kernels for a depthwise convolution of up to three axes."""
    largest = problem.samples * prod(problem.windows.count) * problem.features
    fits = len(problem.spatial) <= MOST_AXES and problem.windows.cells < 65536
    if not fits or largest >= MOST_ENTRIES:
        return None
    return DepthwiseKernels(problem, row_sums.prepare(None, dtype, ops))
