"""Convolution as one matrix product (im2col): kernels that copy windows to columns, and that add columns to an input.

A row of the columns is a window; its entries are the kernel's cells times the channels of a group. Which of the two
varies faster follows the strides of the weight ``(F, C/G, *K)``, so that the weight is multiplied without a copy: in a
trained weight, as in its gradient, channels vary faster; in an initial or loaded one, cells do.
"""

from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compilation import MOST_ENTRIES, Source, address, loaded_cupy, rows
from .elementwise import rectify
from .prelude import MOST_AXES, geometry, strides

# Most bytes of columns at a time.
PART_BYTES = 1 << 28

SOURCE = Source(
    """
// Columns y (G, M, depth) of x, for M windows; one thread for each window and channel
extern "C" __global__ void columns(
    const T* x, T* y, Strides at, Geometry g, int channels, int groups, int cells_first, Index windows, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int c = part(i, channels);
    const Index m = i;
    const int o2 = part(i, g.output[2]), o1 = part(i, g.output[1]), o0 = part(i, g.output[0]);
    const int within = channels / groups, group = c / within, cells = g.kernel[0] * g.kernel[1] * g.kernel[2];
    T* to = y + (group * windows + m) * cells * within + (cells_first ? c % within : c % within * cells);
    const int step = cells_first ? within : 1;
    const T* from = x + i * at.n + c * at.c;
    each_cell(g, o0, o1, o2, [&](int k, int i0, int i1, int i2, bool inside) {
        to[k * step] = inside ? from[along(at, i0, i1, i2)] : (T)0;
    });
}

// The adjoint: each cell of x (N, S, C) is the sum of its entries in the columns of all windows that contain it;
// one thread for each entry of x
extern "C" __global__ void fold(
    const T* columns, T* x, Geometry g, int channels, int groups, int cells_first, Index windows, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = x + i;
    const int c = part(i, channels);
    const int i2 = part(i, g.input[2]), i1 = part(i, g.input[1]), i0 = part(i, g.input[0]);
    const int within = channels / groups, group = c / within, cells = g.kernel[0] * g.kernel[1] * g.kernel[2];
    const T* from = columns + group * windows * cells * within + (cells_first ? c % within : c % within * cells);
    const int step = cells_first ? within : 1;
    T sum = 0;
    each_window(g, i0, i1, i2, [&](int k, int o0, int o1, int o2) {
        const Index m = ((i * g.output[0] + o0) * g.output[1] + o1) * g.output[2] + o2;
        sum += from[m * cells * within + k * step];
    });
    *to = sum;
}
"""
)


class ConvolutionProblem(Protocol):
    """Sizes of a convolution: see `xpnn.layers.convolution.problem.Problem`."""

    samples: int
    spatial: tuple[int, ...]
    channels: int
    features: int
    groups: int
    windows: Windows
    padding: PadWidths
    dtype: str
    rotated: bool


class Im2colKernels:
    """Forward and both gradients of a convolution by columns of the whole batch, or of parts of `PART_BYTES`.

    Parameters
    ----------
    problem : ConvolutionProblem
    ops : Operations
        Whose `matmul` multiplies.
    """

    def __init__(self, problem: ConvolutionProblem, ops: Any) -> None:
        self.problem, self.ops = problem, ops
        self.cells, self.windows = problem.windows.cells, prod(problem.windows.count)
        self.within, self.filters = problem.channels // problem.groups, problem.features // problem.groups
        self.geometry = geometry(problem.spatial, problem.windows, problem.padding)
        # A 1x1 convolution at stride 1 without padding: the columns are the input.
        w = problem.windows
        self.is_pointwise = (
            self.cells == 1
            and w.count == problem.spatial
            and all(s == 1 for s in w.stride)
            and not any(before or after for before, after in problem.padding)
        )

    def parts(self, itemsize: int) -> list[slice]:
        """Slices of the samples whose columns take at most `PART_BYTES`, or of one sample."""
        n = self.problem.samples
        size = max(1, self.windows * self.cells * self.problem.channels * itemsize)
        most = max(1, PART_BYTES // size)
        return [slice(start, min(start + most, n)) for start in range(0, n, most)]

    def columns(self, x: Array, cells_first: bool) -> Array:
        """``x (n, *S, C)`` as columns ``(G, n*O, depth)``; a view for a pointwise convolution."""
        cupy, p = loaded_cupy(), self.problem
        if self.is_pointwise:
            found, _ = rows(x)
            return found.reshape(len(found), p.groups, self.within).transpose(1, 0, 2)
        windows = x.shape[0] * self.windows
        y = cupy.empty((p.groups, windows, self.cells * self.within), x.dtype)
        arguments = (strides(x), self.geometry, p.channels, p.groups, int(cells_first))
        SOURCE.each("columns", p.dtype, windows * p.channels, address(x), y, *arguments, np.int64(windows))
        return y

    def matrices(self, weight: Array) -> tuple[Array, bool]:
        """The weight as ``(G, F/G, depth)``, and whether its channels vary faster than its cells."""
        cells_first = channels_vary_faster(weight)
        if cells_first:
            weight = weight.transpose(0, *range(2, weight.ndim), 1)
        return weight.reshape(self.problem.groups, self.filters, self.cells * self.within), cells_first

    def pack(self, weight: Array) -> None:
        """Nothing: kernels read the weight as it is."""

    def forward(self, x: Array, weight: Array, bias: Array | None, packed: None = None, relu: bool = False) -> Array:
        """``y (N, *O, F)``, or its ReLU: columns times the weight."""
        cupy, p = loaded_cupy(), self.problem
        matrices, cells_first = self.matrices(weight)
        y = cupy.empty((p.samples, *p.windows.count, p.features), x.dtype)
        for part in self.parts(x.itemsize):
            columns = self.columns(x[part], cells_first)
            self._multiply(columns, matrices.transpose(0, 2, 1), self._by_group(y[part]))
        if bias is not None:
            y += bias
        return rectify(y) if relu else y

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        """``dx (N, *S, C)``: upstream rows times the weight, added to the cells of their windows."""
        cupy, p = loaded_cupy(), self.problem
        matrices, cells_first = self.matrices(weight)
        dx = cupy.empty((p.samples, *p.spatial, p.channels), dy.dtype)
        for part in self.parts(dy.itemsize):
            upstream, count = self._by_group(rows(dy[part])[0]), (part.stop - part.start) * self.windows
            if self.is_pointwise:
                self._multiply(upstream, matrices, self._by_group(dx[part]))
                continue
            columns = cupy.empty((p.groups, count, self.cells * self.within), dy.dtype)
            self._multiply(upstream, matrices, columns)
            arguments = (self.geometry, p.channels, p.groups, int(cells_first), np.int64(count))
            SOURCE.each("fold", p.dtype, dx[part].size, columns, dx[part], *arguments)
        return dx

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C/G, *K)``; in memory, channels vary faster than cells."""
        cupy, p = loaded_cupy(), self.problem
        total = None
        for part in self.parts(x.itemsize):
            columns, upstream = self.columns(x[part], True), self._by_group(rows(dy[part])[0])
            sums = cupy.empty((p.groups, self.filters, self.cells * self.within), x.dtype)
            self._multiply(upstream.transpose(0, 2, 1), columns, sums)
            if total is None:
                total = sums
            else:
                total += sums
        if total is None:
            total = cupy.zeros((p.groups, self.filters, self.cells * self.within), x.dtype)
        total = total.reshape(p.features, *p.windows.kernel, self.within)
        return total.transpose(0, total.ndim - 1, *range(1, total.ndim - 1))

    def _by_group(self, y: Array) -> Array:
        """``(*M, G*A)`` as ``(G, M, A)``."""
        groups = self.problem.groups
        split = y.reshape(prod(y.shape[:-1]), groups, y.shape[-1] // groups)
        return split.transpose(1, 0, 2)

    def _multiply(self, a: Array, b: Array, out: Array) -> None:
        if self.problem.groups == 1:
            a, b, out = a[0], b[0], out[0]
        if out.size:
            self.ops.matmul(a, b, out)


def channels_vary_faster(weight: Array) -> bool:
    """Whether channels vary faster than cells in the memory of a weight ``(F, C, *K)``."""
    turned = weight.transpose(0, *range(2, weight.ndim), 1)
    return bool(turned.flags.c_contiguous) and not weight.flags.c_contiguous


@lru_cache(maxsize=1024)
def prepare(problem: ConvolutionProblem, dtype: str, ops: Any) -> Im2colKernels | None:
    """Kernels for a convolution of up to three axes."""
    largest = problem.samples * prod(problem.windows.count) * problem.channels * problem.windows.cells
    fits = len(problem.spatial) <= MOST_AXES and not problem.rotated and largest < MOST_ENTRIES
    return Im2colKernels(problem, ops) if fits else None
