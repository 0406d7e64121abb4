"""Batch normalisation of rows of channels in three kernels each way.

Blocks of threads share the rows. Each adds up ``t = x - shift`` and ``t^2`` of a part, the shift being the mean of the
part's first rows, so that ``sum(t^2) - sum(t)^2 / m`` loses little; one block for 32 channels puts the parts together,
and a thread for each entry applies what it found. A mean is kept in two parts, ``near + rest``: what rounding would
take from the sum is divided by the root of ``eps`` where all values of a channel are equal.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....common.types import Array
from .source import LARGEST, Source, address, dense, library, rows
from .sums import HIGH, TREE, WIDE, split

SOURCE = Source(
    TREE
    + """
// Of each part of the rows the shift, the sum of what differs from it, and of its squares: (3, P, C)
extern "C" __global__ void moments(const T* x, T* y, Index step, Index length, int channels, Index count)
{
    __shared__ T shared[HIGH][WIDE];
    const int c = blockIdx.x * WIDE + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    const Index sampled = last - first < HIGH ? last - first : HIGH;
    const bool mine = c < channels;
    T value = mine && threadIdx.y < sampled ? x[(first + threadIdx.y) * step + c] : (T)0;
    const T shift = tree(value, shared) / (T)sampled;
    T sum = 0, squares = 0;
    if (mine)
        for (Index r = first + threadIdx.y; r < last; r += HIGH) {
            const T t = x[r * step + c] - shift;
            sum += t;
            squares += t * t;
        }
    sum = tree(sum, shared);
    squares = tree(squares, shared);
    if (threadIdx.y == 0 && mine) {
        const Index all = gridDim.y * (Index)channels, at = blockIdx.y * (Index)channels + c;
        y[at] = shift;
        y[all + at] = sum;
        y[2 * all + at] = squares;
    }
}

// What is known of each channel: (7, C), in the order of `Statistics`
struct Known { T *near, *rest, *inverse_std, *mean, *var, *scale, *shift; };

__device__ inline Known known(T* y, int channels)
{
    return {y, y + channels, y + 2 * (Index)channels, y + 3 * (Index)channels, y + 4 * (Index)channels,
            y + 5 * (Index)channels, y + 6 * (Index)channels};
}

__device__ inline void finish(
    const Known &k, int c, T near, T rest, T mean, T var, const T* weight, const T* bias, T eps, bool own)
{
    // A variance of the rows' own that overflowed: 0 would make a bias of every output
    const T inverse = own && var - var != 0 ? not_a_number() : (T)1 / sqrt(var + eps);
    const T scale = weight ? inverse * weight[c] : inverse;
    k.near[c] = near;
    k.rest[c] = rest;
    k.inverse_std[c] = inverse;
    k.mean[c] = mean;
    k.var[c] = var;
    k.scale[c] = scale;
    k.shift[c] = (bias ? bias[c] : (T)0) - rest * scale;
}

// The parts of `moments` put together; a block for 32 channels
extern "C" __global__ void statistics(
    const T* x, const T* weight, const T* bias, T* y, T eps, int parts, Index length, int channels, Index count)
{
    __shared__ T shared[HIGH][WIDE];
    const int c = blockIdx.x * WIDE + threadIdx.x;
    const bool mine = c < channels;
    const Index all = parts * (Index)channels;
    T sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += HIGH) sum += x[p * (Index)channels + c];
    const T near = tree(sum, shared) / (T)parts;
    sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += HIGH) {
            const Index at = p * (Index)channels + c;
            const T m = (T)(p == parts - 1 ? count - (parts - 1) * length : length);
            sum += (x[at] - near) * m + x[all + at];
        }
    const T rest = tree(sum, shared) / (T)count;
    sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += HIGH) {
            const Index at = p * (Index)channels + c;
            const T m = (T)(p == parts - 1 ? count - (parts - 1) * length : length);
            const T within = x[2 * all + at] - x[all + at] * x[all + at] / m;
            const T apart = x[at] - near + x[all + at] / m - rest;
            sum += (within < 0 ? (T)0 : within) + apart * apart * m;
        }
    const T var = tree(sum, shared) / (T)count;
    if (threadIdx.y == 0 && mine) finish(known(y, channels), c, near, rest, near + rest, var, weight, bias, eps, true);
}

// The same of a mean and a variance that are given; a thread for each channel
extern "C" __global__ void given(
    const T* mean, const T* var, const T* weight, const T* bias, T* y, T eps, int channels, Index count)
{
    const Index c = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (c < count) finish(known(y, channels), c, mean[c], 0, mean[c], var[c], weight, bias, eps, false);
}

extern "C" __global__ void normalise(const T* x, const T* stats, T* y, Index step, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Index to = i;
    const int c = part(i, channels);
    const T* near = stats + c;
    y[to] = (x[i * step + c] - *near) * near[5 * (Index)channels] + near[6 * (Index)channels];
}

// Of each part of the rows the sums of dy and of dy (x - near): (2, P, C)
extern "C" __global__ void gradient_sums(
    const T* dy, const T* x, const T* stats, T* y, Index step, Index x_step, Index length, int channels, Index count)
{
    __shared__ T shared[HIGH][WIDE];
    const int c = blockIdx.x * WIDE + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    const bool mine = c < channels;
    T sum = 0, product = 0;
    if (mine) {
        const T near = stats[c];
        for (Index r = first + threadIdx.y; r < last; r += HIGH) {
            const T d = dy[r * step + c];
            sum += d;
            product += d * (x[r * x_step + c] - near);
        }
    }
    sum = tree(sum, shared);
    product = tree(product, shared);
    if (threadIdx.y == 0 && mine) {
        const Index at = blockIdx.y * (Index)channels + c;
        y[at] = sum;
        y[gridDim.y * (Index)channels + at] = product;
    }
}

// dweight and dbias, and slope, offset and scale of dx = (dy + (x - near) slope + offset) scale: (3, C)
extern "C" __global__ void gradients(
    const T* x, const T* stats, const T* weight, T* dw, T* db, T* y, int constant, int parts, int channels, Index count)
{
    __shared__ T shared[HIGH][WIDE];
    const int c = blockIdx.x * WIDE + threadIdx.x;
    const bool mine = c < channels;
    const Index all = parts * (Index)channels;
    T sum = 0, product = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += HIGH) {
            sum += x[p * (Index)channels + c];
            product += x[all + p * (Index)channels + c];
        }
    sum = tree(sum, shared);
    product = tree(product, shared);
    if (threadIdx.y != 0 || !mine) return;
    const T rest = stats[channels + c], inverse = stats[2 * (Index)channels + c];
    const T dweight = (product - rest * sum) * inverse;
    const T slope = constant ? (T)0 : -inverse * (dweight / (T)count);
    dw[c] = dweight;
    db[c] = sum;
    y[c] = slope;
    y[channels + c] = constant ? (T)0 : -sum / (T)count - rest * slope;
    y[2 * (Index)channels + c] = weight ? inverse * weight[c] : inverse;
}

extern "C" __global__ void normalise_back(
    const T* dy, const T* x, const T* stats, const T* slopes, T* dx, Index step, Index x_step, int channels,
    Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Index to = i;
    const int c = part(i, channels);
    const T centred = x[i * x_step + c] - stats[c];
    const T slope = slopes[c], offset = slopes[channels + c];
    // No slope: statistics were given, and an x that is no finite number says nothing of dx.
    const T apart = slope == 0 ? (T)0 : centred * slope;
    dx[to] = (dy[i * step + c] + apart + offset) * slopes[2 * (Index)channels + c];
}

// Running statistics moved towards those of a batch; counted batches are the share where there is no momentum
extern "C" __global__ void track(
    const T* mean, const T* var, const T* old_mean, const T* old_var, const long long* batches, T* new_mean, T* new_var,
    long long* counted, T momentum, T unbiased, int averaged, Index count)
{
    const Index c = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    const long long so_far = *batches + 1;
    if (c == 0) *counted = so_far;
    if (c >= count) return;
    const T share = averaged ? (T)1 / (T)so_far : momentum;
    new_mean[c] = old_mean[c] * ((T)1 - share) + mean[c] * share;
    new_var[c] = old_var[c] * ((T)1 - share) + var[c] * unbiased * share;
}
"""
)


@dataclass(frozen=True)
class Statistics:
    """An input as rows, and what normalised it.

    Attributes
    ----------
    rows : array
        The input itself, ``(cells, C)``, or a copy where its strides do not allow that.
    step : int
        Entries from one row to the next.
    found : array
        ``(7, C)``: the mean in two parts, ``near`` and ``rest``, inverse standard deviation, mean, variance, and what
        ``x - near`` is multiplied with and what is added.
    """

    rows: Array
    step: int
    found: Array

    @property
    def mean(self) -> Array:
        """``(C,)``."""
        return self.found[3]

    @property
    def var(self) -> Array:
        """``(C,)``, over the number of values."""
        return self.found[4]


class BatchNorm:
    """Batch normalisation of ``x (N, *S, C)``."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.number = np.dtype(dtype).type

    def forward(
        self, x: Array, weight: Array | None, bias: Array | None, given: tuple[Array, Array] | None, eps: float
    ) -> tuple[Array, Statistics]:
        """``y`` and the statistics, those of ``x`` unless a mean and a variance are given."""
        cupy = library()
        shape, channels = x.shape, x.shape[-1]
        x, step = rows(x)
        count, affine = np.int64(len(x)), [dense(weight), dense(bias)]
        found = cupy.empty((7, channels), x.dtype)
        if given is not None:
            SOURCE.each("given", self.dtype, channels, *map(dense, given), *affine, found, self.number(eps), channels)
        else:
            parts, length = split(len(x))
            partial = cupy.empty((3, parts, channels), x.dtype)
            grid, block = (-(-channels // WIDE), parts), (WIDE, HIGH)
            sizes = (np.int64(length), channels, count)
            SOURCE.launch("moments", self.dtype, grid, block, address(x), partial, np.int64(step), *sizes)
            order = (self.number(eps), parts, *sizes)
            SOURCE.launch("statistics", self.dtype, grid[:1], block, partial, *affine, found, *order)
        y = cupy.empty(shape, x.dtype)
        SOURCE.each("normalise", self.dtype, y.size, address(x), found, y, np.int64(step), channels)
        return y, Statistics(x, step, found)

    def backward(
        self, dy: Array, known: Statistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)`` for ``dy (N, *S, C)``; with ``constant`` the statistics were given."""
        cupy = library()
        shape, channels = dy.shape, dy.shape[-1]
        dy, step = rows(dy)
        count = np.int64(len(dy))
        parts, length = split(len(dy))
        partial, found = cupy.empty((2, parts, channels), dy.dtype), cupy.empty((3, channels), dy.dtype)
        grid, block = (-(-channels // WIDE), parts), (WIDE, HIGH)
        steps = (np.int64(step), np.int64(known.step))
        sizes = (*steps, np.int64(length), channels, count)
        SOURCE.launch(
            "gradient_sums", self.dtype, grid, block, address(dy), address(known.rows), known.found, partial, *sizes
        )
        dweight, dbias = cupy.empty(channels, dy.dtype), cupy.empty(channels, dy.dtype)
        order = (dense(weight), dweight, dbias, found, int(constant), parts, channels, count)
        SOURCE.launch("gradients", self.dtype, grid[:1], block, partial, known.found, *order)
        if not input_grad:
            return None, dweight, dbias
        dx = cupy.empty(shape, dy.dtype)
        SOURCE.each(
            "normalise_back",
            self.dtype,
            dx.size,
            address(dy),
            address(known.rows),
            known.found,
            found,
            dx,
            *steps,
            channels,
        )
        return dx, dweight, dbias

    def tracks(self, running: tuple[Array, Array, Array], known: Statistics) -> bool:
        """Whether running mean, variance and number of batches have the shapes and dtypes that `track` takes."""
        mean, var, batches = ((each.shape, each.dtype) for each in running)
        return mean == var == (known.mean.shape, known.found.dtype) and batches == ((), np.int64)

    def track(
        self, known: Statistics, running: tuple[Array, Array, Array], momentum: float | None
    ) -> tuple[Array, Array, Array]:
        """New running mean, variance and number of batches, moved towards those of a batch."""
        cupy, cells = library(), len(known.rows)
        mean, var = cupy.empty(len(running[0]), known.found.dtype), cupy.empty(len(running[0]), known.found.dtype)
        batches = cupy.empty((), np.int64)
        order = (self.number(momentum or 0.0), self.number(cells / (cells - 1)), int(momentum is None))
        arrays = (known.mean, known.var, *map(dense, running), mean, var, batches)
        SOURCE.each("track", self.dtype, len(mean), *arrays, *order)
        return mean, var, batches


@lru_cache(maxsize=1024)
def prepare(cells: int, channels: int, dtype: str) -> BatchNorm | None:
    """Kernels for a batch norm of at least two rows."""
    return BatchNorm(dtype) if cells > 1 and 0 < cells * channels < LARGEST else None
