"""Cross-entropy of logits with classes: a thread for each target, then one block for the sums of all blocks.

A thread goes through the classes of its target three times, which costs less than to share them as long as the targets
are many and the classes few; the layers' array functions serve the other cases.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from .source import LARGEST, THREADS, Source, address, dense, library, strides

# Classes from which a warp should share a target.
MANY = 4096

SOURCE = Source(
    f"#define BLOCK {THREADS}\n"
    """
struct Sizes { Index sizes[3], target[4]; };

struct Place { const T* logits; Index step; int y; bool kept; T share; };

// The logits of a target, and how much it counts: 0 if it is ignored, NaN if it is no class
__device__ inline Place place(
    const T* x, const void* targets, const T* weight, const Strides &at, const Index sizes[3], const Index target[4],
    int wide, int classes, long long ignored, Index i)
{
    Place p;
    const Index i2 = i % sizes[2], i1 = i / sizes[2] % sizes[1], i0 = i / (sizes[2] * sizes[1]) % sizes[0];
    const Index n = i / (sizes[2] * sizes[1] * sizes[0]);
    const Index from = n * target[0] + i0 * target[1] + i1 * target[2] + i2 * target[3];
    long long y;
    if (wide == 8) y = ((const long long*)targets)[from];
    else y = ((const int*)targets)[from];
    p.logits = x + n * at.n + i0 * at.s[0] + i1 * at.s[1] + i2 * at.s[2];
    p.step = at.c;
    const bool inside = y >= 0 && y < classes;
    p.y = inside ? (int)y : 0;
    p.share = weight ? weight[p.y] : (T)1;
    if (!inside) p.share = not_a_number();
    p.kept = y != ignored;
    if (!p.kept) p.share = 0;
    return p;
}

// x - most, and 0 where both are infinity
__device__ inline T below(T x, T most) { return x > 0 && x - x != 0 ? (T)0 : x - most; }

// The largest logit of a target and the sum of the exponentials of what the others are below it; false if one is NaN
__device__ inline bool softmax_sums(const Place &p, int classes, T &most, T &sum)
{
    bool numbers = true;
    most = p.logits[0];
    sum = 0;
    for (int c = 0; c < classes; ++c) {
        const T each = p.logits[c * p.step];
        numbers = numbers && each == each;
        most = each > most ? each : most;
    }
    for (int c = 0; c < classes; ++c) sum += exp(below(p.logits[c * p.step], most));
    return numbers;
}

// The sum over the threads of a block, for all of them
__device__ inline T block_sum(T value, T (&shared)[BLOCK])
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const T sum = shared[0];
    __syncthreads();
    return sum;
}

// losses (M,), or of each block the sums of its losses and of what they count: (2, blocks)
extern "C" __global__ void losses(
    const T* x, const void* targets, const T* weight, T* y, T* parts, Strides at, Sizes s, int wide, int classes,
    long long ignored, Index count)
{
    __shared__ T shared[BLOCK];
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    T loss = 0, share = 0;
    if (i < count) {
        const Place p = place(x, targets, weight, at, s.sizes, s.target, wide, classes, ignored, i);
        T most, sum;
        const bool numbers = softmax_sums(p, classes, most, sum);
        share = p.share;
        loss = numbers ? log(sum) - below(p.logits[p.y * p.step], most) : not_a_number();
        loss = share == 0 ? (T)0 : loss * share;
        if (y) y[i] = loss;
    }
    if (!parts) return;
    loss = block_sum(loss, shared);
    share = block_sum(share, shared);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = loss;
        parts[gridDim.x + blockIdx.x] = share;
    }
}

// The sum of parts, divided by that of the parts behind them where a mean is asked for; one block
extern "C" __global__ void reduced(const T* parts, T* y, int mean, Index count)
{
    __shared__ T shared[BLOCK];
    T sum = 0, by = 0;
    for (Index i = threadIdx.x; i < count; i += BLOCK) {
        sum += parts[i];
        if (mean) by += parts[count + i];
    }
    sum = block_sum(sum, shared);
    by = mean ? block_sum(by, shared) : (T)1;
    if (threadIdx.x == 0) *y = by == 0 ? not_a_number() : sum / by;
}

// What targets count, summed by blocks of length targets
extern "C" __global__ void total_share(
    const void* targets, const T* weight, T* y, Sizes s, int wide, int classes, long long ignored, Index length,
    Index count)
{
    __shared__ T shared[BLOCK];
    const Index first = blockIdx.x * length, last = first + length < count ? first + length : count;
    T sum = 0;
    Strides nowhere = {};
    for (Index i = first + threadIdx.x; i < last; i += BLOCK)
        sum += place((const T*)0, targets, weight, nowhere, s.sizes, s.target, wide, classes, ignored, i).share;
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

// The gradient, of shape (N, S, C)
extern "C" __global__ void slopes(
    const T* x, const void* targets, const T* weight, const T* by, T* dx, Strides at, Sizes s, int wide, int classes,
    long long ignored, T dy, const T* upstream, int each, Index count)
{
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Place p = place(x, targets, weight, at, s.sizes, s.target, wide, classes, ignored, i);
    T* to = dx + i * classes;
    if (!p.kept) {
        for (int c = 0; c < classes; ++c) to[c] = 0;
        return;
    }
    T most, sum;
    const bool numbers = softmax_sums(p, classes, most, sum);
    if (upstream) dy = upstream[each ? i : 0];
    const T all = by ? (*by == 0 ? (T)1 : *by) : (T)1;
    for (int c = 0; c < classes; ++c) {
        const T probability = numbers ? exp(below(p.logits[c * p.step], most)) / sum : not_a_number();
        to[c] = (probability - (c == p.y ? (T)1 : (T)0)) * p.share * dy / all;
    }
}
"""
)
SIZES = np.dtype([("sizes", np.int64, (3,)), ("target", np.int64, (4,))])
# Targets whose shares a block sums up.
SHARES = 64 * THREADS


@lru_cache(maxsize=1024)
def _sizes(shape: tuple[int, ...], steps: tuple[int, ...], itemsize: int) -> Any:
    """Sizes of ``(N, *S)`` after the first, and the strides of an array of that shape, as kernels take them."""
    missing = 3 - len(shape) + 1
    spatial = (1,) * missing + shape[1:]
    entries = [step // itemsize for step in steps]
    return np.array((spatial, (entries[0], *(0,) * missing, *entries[1:])), dtype=SIZES)


class CrossEntropy:
    """Cross-entropy of ``logits (N, *S, C)`` with classes ``(N, *S)``, without smoothing."""

    def __init__(self, dtype: str, ignored: int, reduction: str) -> None:
        self.dtype, self.ignored, self.reduction = dtype, np.int64(ignored), reduction
        self.number = np.dtype(dtype).type

    def forward(self, logits: Array, target: Array, weight: Array | None) -> Array:
        """The losses ``(N, *S)``, or reduced to one, 0-d."""
        cupy, classes = library(), logits.shape[-1]
        count, whole = prod(target.shape), self.reduction == "none"
        losses = cupy.empty(target.shape, logits.dtype) if whole else None
        parts = None if whole else cupy.empty((2, -(-count // THREADS)), logits.dtype)
        arrays = (address(logits), address(target), dense(weight), losses, parts)
        SOURCE.each("losses", self.dtype, count, *arrays, strides(logits), *self._order(target, classes))
        return losses if parts is None else self._reduced(parts[0].size, parts, self.reduction == "mean")

    def _reduced(self, count: int, parts: Array, mean: bool) -> Array:
        """The sum of so many parts, 0-d; with ``mean`` by the sum of the ones behind them, NaN where that is 0."""
        value = library().empty((), parts.dtype)
        SOURCE.launch("reduced", self.dtype, (1,), (THREADS,), parts, value, int(mean), np.int64(count))
        return value

    def backward(self, dy: Array | float, logits: Array, target: Array, weight: Array | None) -> Array:
        """The gradient ``(N, *S, C)``, for an upstream gradient that is a number, 0-d or ``(N, *S)``."""
        cupy, classes = library(), logits.shape[-1]
        order, w = self._order(target, classes), dense(weight)
        by = None
        if self.reduction == "mean":
            by = self._total_share(target, w, order, logits.dtype)
        dx = cupy.empty(logits.shape, logits.dtype)
        arrays = (address(logits), address(target), w, by, dx, strides(logits))
        # NumPy's float64 is a float that has a shape.
        upstream = (
            (self.number(dy), None, 0)
            if isinstance(dy, int | float)
            else (self.number(1.0), dense(dy), int(dy.ndim > 0))
        )
        SOURCE.each("slopes", self.dtype, prod(target.shape), *arrays, *order, *upstream)
        return dx

    def _total_share(self, target: Array, weight: Array | None, order: tuple[Any, ...], dtype: Any) -> Array:
        """What all targets count, 0-d."""
        count = prod(target.shape)
        blocks = max(1, -(-count // SHARES))
        parts = library().empty((blocks,) if blocks > 1 else (), dtype)
        sizes = (np.int64(SHARES), np.int64(count))
        SOURCE.launch("total_share", self.dtype, (blocks,), (THREADS,), address(target), weight, parts, *order, *sizes)
        return parts if blocks == 1 else self._reduced(blocks, parts, False)

    def _order(self, target: Array, classes: int) -> tuple[Any, ...]:
        sizes = _sizes(target.shape, target.strides, target.itemsize)
        return sizes, target.itemsize, classes, self.ignored


@lru_cache(maxsize=1024)
def prepare(problem: tuple[tuple[int, ...], str, int, str], dtype: str) -> CrossEntropy | None:
    """Kernels for logits ``(N, *S, C)`` of that shape, with targets of that dtype, an ignored class and a reduction."""
    shape, target, ignored, reduction = problem
    fits = (
        2 <= len(shape) <= 5
        and 0 < shape[-1] <= MANY
        and target in ("int32", "int64")
        and prod(shape) < LARGEST
        and -(2**63) <= ignored < 2**63
    )
    return CrossEntropy(dtype, ignored, reduction) if fits else None
