"""Max and average pools: one thread for each window forward, and for each cell of the input backward.

Backward, a thread adds up the windows that contain its cell in row-major order, so that the order of sums is fixed.
"""

from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compilation import MOST_ENTRIES, Source, address, loaded_cupy
from .prelude import MOST_AXES, geometry, strides


class PoolWindows(Protocol):
    """Windows and padding of a pool: see `xpnn.layers.windows.geometry.Geometry`."""

    windows: Windows
    padding: PadWidths


# C++ types of the index of a cell in its window.
INDEX_TYPES = {"int8": "signed char", "int32": "int"}
MAX_POOL = """
extern "C" __global__ void maxima_{name}(
    const T* x, T* best, {kind}* cell, Strides at, Geometry g, int channels, Index count)
{{
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i < count) largest(x, best, cell, at, g, channels, i);
}}

extern "C" __global__ void maxima_back_{name}(
    const T* dy, const {kind}* cell, T* dx, Strides up, Strides at, Geometry g, int channels, Index count)
{{
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i < count) spread(dy, cell, dx, up, at, g, channels, i);
}}
"""

TEMPLATE = """
// The first maximum of a window, and its cell; NaN counts as the largest.
template <class Cell> __device__ inline void largest(
    const T* x, T* best, Cell* cell, const Strides &at, const Geometry &g, int channels, Index i)
{
    const Index to = i;
    const int c = part(i, channels);
    const int o2 = part(i, g.output[2]), o1 = part(i, g.output[1]), o0 = part(i, g.output[0]);
    const T* from = x + i * at.n + c * at.c;
    bool found = false;
    T most = 0;
    int which = 0;
    each_cell(g, o0, o1, o2, [&](int k, int i0, int i1, int i2, bool inside) {
        if (!inside) return;
        const T each = from[along(at, i0, i1, i2)];
        if (found && (each <= most || most != most)) return;
        most = each;
        which = k;
        found = true;
    });
    best[to] = most;
    cell[to] = (Cell)which;
}

// dx of one cell: the sum of dy over the windows whose maximum it is
template <class Cell> __device__ inline void spread(
    const T* dy, const Cell* cell, T* dx, const Strides &up, const Strides &at, const Geometry &g, int channels,
    Index i)
{
    T* to = dx + i;
    const int c = part(i, channels);
    const int i2 = part(i, g.input[2]), i1 = part(i, g.input[1]), i0 = part(i, g.input[0]);
    T sum = 0;
    each_window(g, i0, i1, i2, [&](int k, int o0, int o1, int o2) {
        if (cell[i * at.n + along(at, o0, o1, o2) + c * at.c] != k) return;
        sum += dy[i * up.n + along(up, o0, o1, o2) + c * up.c];
    });
    *to = sum;
}

@maxima@

// Along an axis, the number of cells of window o from low up to, but not including, high.
__device__ inline int covered(int o, const Geometry &g, int axis, int low, int high)
{
    int cells = 0;
    for (int k = 0; k < g.kernel[axis]; ++k) {
        const int at = o * g.stride[axis] + k * g.dilation[axis] - g.before[axis];
        cells += at >= low && at < high;
    }
    return cells;
}

// The divisor of all windows if fixed is not 0; else a window is divided by its number of cells from low to high.
struct Divisor { double fixed; int low[3], high[3]; };

__device__ inline T divisor(const Divisor &by, const Geometry &g, int o0, int o1, int o2)
{
    if (by.fixed) return (T)by.fixed;
    return (T)covered(o0, g, 0, by.low[0], by.high[0]) * (T)covered(o1, g, 1, by.low[1], by.high[1])
        * (T)covered(o2, g, 2, by.low[2], by.high[2]);
}

extern "C" __global__ void means(const T* x, T* y, Strides at, Geometry g, Divisor by, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = y + i;
    const int c = part(i, channels);
    const int o2 = part(i, g.output[2]), o1 = part(i, g.output[1]), o0 = part(i, g.output[0]);
    const T* from = x + i * at.n + c * at.c;
    T sum = 0;
    each_cell(g, o0, o1, o2, [&](int k, int i0, int i1, int i2, bool inside) {
        if (inside) sum += from[along(at, i0, i1, i2)];
    });
    *to = sum / divisor(by, g, o0, o1, o2);
}

extern "C" __global__ void means_back(const T* dy, T* dx, Strides up, Geometry g, Divisor by, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    T* to = dx + i;
    const int c = part(i, channels);
    const int i2 = part(i, g.input[2]), i1 = part(i, g.input[1]), i0 = part(i, g.input[0]);
    const T* from = dy + i * up.n + c * up.c;
    T sum = 0;
    each_window(g, i0, i1, i2, [&](int k, int o0, int o1, int o2) {
        sum += from[along(up, o0, o1, o2)] / divisor(by, g, o0, o1, o2);
    });
    *to = sum;
}
"""
SOURCE = Source(
    TEMPLATE.replace("@maxima@", "".join(MAX_POOL.format(name=name, kind=kind) for name, kind in INDEX_TYPES.items()))
)
DIVISOR = np.dtype([("fixed", np.float64), ("low", np.int32, (MOST_AXES,)), ("high", np.int32, (MOST_AXES,))])


class MaxPoolKernels:
    """Maxima over windows, and their gradient; arrays are ``(N, *S, C)``."""

    def __init__(self, placed: PoolWindows, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.count, self.dtype = shape, placed.windows.count, dtype
        self.geometry = geometry(shape[1:-1], placed.windows, placed.padding)
        self.index = "int8" if placed.windows.cells <= 127 else "int32"

    def forward(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and the row-major index in its window of the first one."""
        cupy, channels = loaded_cupy(), self.shape[-1]
        best = cupy.empty((self.shape[0], *self.count, channels), x.dtype)
        cell = cupy.empty(best.shape, self.index)
        arguments = (strides(x), self.geometry, channels)
        SOURCE.each(f"maxima_{self.index}", self.dtype, best.size, address(x), best, cell, *arguments)
        return best, cell

    def backward(self, dy: Array, cell: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx = loaded_cupy().empty(self.shape, dy.dtype)
        arguments = (strides(dy), strides(cell), self.geometry, self.shape[-1])
        SOURCE.each(f"maxima_back_{self.index}", self.dtype, dx.size, address(dy), address(cell), dx, *arguments)
        return dx


class AvgPoolKernels:
    """Averages over windows, and their gradient; arrays are ``(N, *S, C)``."""

    def __init__(
        self, placed: PoolWindows, shape: tuple[int, ...], dtype: str, count_include_pad: bool, fixed: int | None
    ) -> None:
        self.shape, self.count, self.dtype = shape, placed.windows.count, dtype
        spatial = shape[1:-1]
        self.geometry = geometry(spatial, placed.windows, placed.padding)
        # Cells beyond the padding, which a last window may reach in ceil mode, never count.
        pairs = placed.padding if count_include_pad else ((0, 0),) * len(spatial)
        missing = MOST_AXES - len(spatial)
        low = [0] * missing + [-before for before, _ in pairs]
        high = [1] * missing + [n + after for n, (_, after) in zip(spatial, pairs, strict=True)]
        self.divisor = np.array((fixed or 0, low, high), dtype=DIVISOR)

    def forward(self, x: Array) -> Array:
        """The averages."""
        cupy, channels = loaded_cupy(), self.shape[-1]
        y = cupy.empty((self.shape[0], *self.count, channels), x.dtype)
        arguments = (strides(x), self.geometry, self.divisor, channels)
        SOURCE.each("means", self.dtype, y.size, address(x), y, *arguments)
        return y

    def backward(self, dy: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx = loaded_cupy().empty(self.shape, dy.dtype)
        arguments = (strides(dy), self.geometry, self.divisor, self.shape[-1])
        SOURCE.each("means_back", self.dtype, dx.size, address(dy), dx, *arguments)
        return dx


@lru_cache(maxsize=1024)
def prepare_max(problem: tuple[PoolWindows, tuple[int, ...]], dtype: str, ops: Any) -> MaxPoolKernels | None:
    """Kernels for a max-pool of an input ``(N, *S, C)`` of that shape."""
    placed, shape = problem
    return MaxPoolKernels(placed, shape, dtype) if _fits(placed, shape) else None


@lru_cache(maxsize=1024)
def prepare_avg(
    problem: tuple[PoolWindows, tuple[int, ...], bool, int | None], dtype: str, ops: Any
) -> AvgPoolKernels | None:
    """Kernels for an average pool of an input ``(N, *S, C)`` of that shape."""
    placed, shape, count_include_pad, fixed = problem
    return AvgPoolKernels(placed, shape, dtype, count_include_pad, fixed) if _fits(placed, shape) else None


def _fits(placed: PoolWindows, shape: tuple[int, ...]) -> bool:
    largest = max(prod(shape), shape[0] * prod(placed.windows.count) * shape[-1])
    return len(shape) - 2 <= MOST_AXES and largest < MOST_ENTRIES
