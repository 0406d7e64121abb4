"""Cross-entropy of logits with classes: one thread for each target, then one block that adds the sums of all blocks.

A thread reads the classes of its target three times. That is fast for many targets and few classes; beyond
`MOST_CLASSES` the layers' array functions are used.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from .compilation import MOST_ENTRIES, THREADS, Source, address, dense, loaded_cupy
from .prelude import strides

# With more classes a target should be divided among the threads of a warp.
MOST_CLASSES = 4096

SOURCE = Source(
    f"#define BLOCK {THREADS}\n"
    """
// Sizes of the spatial axes, and strides of the targets (N, S0, S1, S2) in entries.
struct Sizes { Index sizes[3], target[4]; };

// Logits of a target and their stride, its class y, whether it is counted, and its weight.
struct Target { const T* logits; Index step; int y; bool counted; T weight; };

// Target i; its weight is 0 if it is ignored, and NaN if its class is out of range
__device__ inline Target target_of(
    const T* x, const void* targets, const T* weight, const Strides &at, const Index sizes[3], const Index target[4],
    int wide, int classes, long long ignored, Index i)
{
    Target p;
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
    p.weight = weight ? weight[p.y] : (T)1;
    if (!inside) p.weight = not_a_number();
    p.counted = y != ignored;
    if (!p.counted) p.weight = 0;
    return p;
}

// x - most, and 0 if both are positive infinity
__device__ inline T subtract_most(T x, T most) { return x > 0 && x - x != 0 ? (T)0 : x - most; }

// The largest logit of a target, and the sum of exp(logit - largest) over its classes; false if a logit is NaN
__device__ inline bool softmax_sums(const Target &p, int classes, T &most, T &sum)
{
    bool numbers = true;
    most = p.logits[0];
    sum = 0;
    for (int c = 0; c < classes; ++c) {
        const T each = p.logits[c * p.step];
        numbers = numbers && each == each;
        most = each > most ? each : most;
    }
    for (int c = 0; c < classes; ++c) sum += exp(subtract_most(p.logits[c * p.step], most));
    return numbers;
}

// The sum over the threads of a block, returned to all of them
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

// Losses y (M,), or, for each block, the sums of its losses and of its targets' weights: parts (2, blocks)
extern "C" __global__ void losses(
    const T* x, const void* targets, const T* weight, T* y, T* parts, Strides at, Sizes s, int wide, int classes,
    long long ignored, Index count)
{
    __shared__ T shared[BLOCK];
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    T loss = 0, weight_of_target = 0;
    if (i < count) {
        const Target p = target_of(x, targets, weight, at, s.sizes, s.target, wide, classes, ignored, i);
        T most, sum;
        const bool numbers = softmax_sums(p, classes, most, sum);
        weight_of_target = p.weight;
        loss = numbers ? log(sum) - subtract_most(p.logits[p.y * p.step], most) : not_a_number();
        loss = weight_of_target == 0 ? (T)0 : loss * weight_of_target;
        if (y) y[i] = loss;
    }
    if (!parts) return;
    loss = block_sum(loss, shared);
    weight_of_target = block_sum(weight_of_target, shared);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = loss;
        parts[gridDim.x + blockIdx.x] = weight_of_target;
    }
}

// The sum of parts (count,); with mean, divided by the sum of the count numbers that follow them. One block
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

// For each block of length targets, the sum of their weights
extern "C" __global__ void total_weight(
    const void* targets, const T* weight, T* y, Sizes s, int wide, int classes, long long ignored, Index length,
    Index count)
{
    __shared__ T shared[BLOCK];
    const Index first = blockIdx.x * length, last = first + length < count ? first + length : count;
    T sum = 0;
    Strides unused = {};
    for (Index i = first + threadIdx.x; i < last; i += BLOCK)
        sum += target_of((const T*)0, targets, weight, unused, s.sizes, s.target, wide, classes, ignored, i).weight;
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

// The gradient dx (N, S, C)
extern "C" __global__ void slopes(
    const T* x, const void* targets, const T* weight, const T* by, T* dx, Strides at, Sizes s, int wide, int classes,
    long long ignored, T dy, const T* upstream, int each, Index count)
{
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Target p = target_of(x, targets, weight, at, s.sizes, s.target, wide, classes, ignored, i);
    T* to = dx + i * classes;
    if (!p.counted) {
        for (int c = 0; c < classes; ++c) to[c] = 0;
        return;
    }
    T most, sum;
    const bool numbers = softmax_sums(p, classes, most, sum);
    if (upstream) dy = upstream[each ? i : 0];
    const T total = by ? (*by == 0 ? (T)1 : *by) : (T)1;
    for (int c = 0; c < classes; ++c) {
        const T probability = numbers ? exp(subtract_most(p.logits[c * p.step], most)) / sum : not_a_number();
        to[c] = (probability - (c == p.y ? (T)1 : (T)0)) * p.weight * dy / total;
    }
}
"""
)
TARGET_SIZES = np.dtype([("sizes", np.int64, (3,)), ("target", np.int64, (4,))])
# Targets whose weights one block adds up.
TARGETS_OF_BLOCK = 64 * THREADS


@lru_cache(maxsize=1024)
def _sizes(shape: tuple[int, ...], steps: tuple[int, ...], itemsize: int) -> Any:
    """The struct ``Sizes`` for targets ``(N, *S)`` of these strides in bytes."""
    missing = 3 - len(shape) + 1
    spatial = (1,) * missing + shape[1:]
    entries = [step // itemsize for step in steps]
    return np.array((spatial, (entries[0], *(0,) * missing, *entries[1:])), dtype=TARGET_SIZES)


class CrossEntropyKernels:
    """Cross-entropy of ``logits (N, *S, C)`` with classes ``(N, *S)``, without label smoothing."""

    def __init__(self, dtype: str, ignored: int, reduction: str) -> None:
        self.dtype, self.ignored, self.reduction = dtype, np.int64(ignored), reduction
        self.number = np.dtype(dtype).type

    def forward(self, logits: Array, target: Array, weight: Array | None) -> Array:
        """The losses ``(N, *S)``, or their sum or mean, 0-d."""
        cupy, classes = loaded_cupy(), logits.shape[-1]
        count, each = prod(target.shape), self.reduction == "none"
        losses = cupy.empty(target.shape, logits.dtype) if each else None
        parts = None if each else cupy.empty((2, -(-count // THREADS)), logits.dtype)
        arrays = (address(logits), address(target), dense(weight), losses, parts)
        SOURCE.each("losses", self.dtype, count, *arrays, strides(logits), *self._target_arguments(target, classes))
        return losses if parts is None else self._reduced(parts[0].size, parts, self.reduction == "mean")

    def _reduced(self, count: int, parts: Array, mean: bool) -> Array:
        """The sum of ``count`` parts, 0-d; with ``mean``, divided by the sum of the next ``count``, NaN for 0."""
        value = loaded_cupy().empty((), parts.dtype)
        SOURCE.launch("reduced", self.dtype, (1,), (THREADS,), parts, value, int(mean), np.int64(count))
        return value

    def backward(self, dy: Array | float, logits: Array, target: Array, weight: Array | None) -> Array:
        """The gradient ``(N, *S, C)``, for an upstream gradient that is a number, 0-d or ``(N, *S)``."""
        cupy, classes = loaded_cupy(), logits.shape[-1]
        target_arguments, w = self._target_arguments(target, classes), dense(weight)
        by = None
        if self.reduction == "mean":
            by = self._total_weight(target, w, target_arguments, logits.dtype)
        dx = cupy.empty(logits.shape, logits.dtype)
        arrays = (address(logits), address(target), w, by, dx, strides(logits))
        # A np.float64 is a float, but also has the attributes of an array.
        upstream = (
            (self.number(dy), None, 0)
            if isinstance(dy, int | float)
            else (self.number(1.0), dense(dy), int(dy.ndim > 0))
        )
        SOURCE.each("slopes", self.dtype, prod(target.shape), *arrays, *target_arguments, *upstream)
        return dx

    def _total_weight(self, target: Array, weight: Array | None, arguments: tuple[Any, ...], dtype: Any) -> Array:
        """The sum of all targets' weights, 0-d."""
        count = prod(target.shape)
        blocks = max(1, -(-count // TARGETS_OF_BLOCK))
        parts = loaded_cupy().empty((blocks,) if blocks > 1 else (), dtype)
        sizes = (np.int64(TARGETS_OF_BLOCK), np.int64(count))
        SOURCE.launch(
            "total_weight", self.dtype, (blocks,), (THREADS,), address(target), weight, parts, *arguments, *sizes
        )
        return parts if blocks == 1 else self._reduced(blocks, parts, False)

    def _target_arguments(self, target: Array, classes: int) -> tuple[Any, ...]:
        sizes = _sizes(target.shape, target.strides, target.itemsize)
        return sizes, target.itemsize, classes, self.ignored


@lru_cache(maxsize=1024)
def prepare(problem: tuple[tuple[int, ...], str, int, str], dtype: str, ops: Any) -> CrossEntropyKernels | None:
    """Kernels for a problem ``(shape of the logits (N, *S, C), dtype of the targets, ignored class, reduction)``."""
    shape, target, ignored, reduction = problem
    fits = (
        2 <= len(shape) <= 5
        and 0 < shape[-1] <= MOST_CLASSES
        and target in ("int32", "int64")
        and prod(shape) < MOST_ENTRIES
        and -(2**63) <= ignored < 2**63
    )
    return CrossEntropyKernels(dtype, ignored, reduction) if fits else None
