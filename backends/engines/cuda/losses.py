"""Cross-entropy of logits with classes: a thread for each target, then one block for what is reduced.

A thread goes through the classes of its target three times, which costs less than to share them as long as the targets
are many and the classes few; the layers' array functions serve the other cases.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...types import Array
from .source import LARGEST, Source, address, dense, library, strides

# Classes from which a warp should share a target.
MANY = 4096

SOURCE = Source(
    """
#define BLOCK 512

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

struct Sizes { Index sizes[3], target[4]; };

// losses (M,) and what each counts (M,)
extern "C" __global__ void losses(
    const T* x, const void* targets, const T* weight, T* y, T* shares, Strides at, Sizes s, int wide, int classes,
    long long ignored, Index count)
{
    const Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Place p = place(x, targets, weight, at, s.sizes, s.target, wide, classes, ignored, i);
    T most = p.logits[0], sum = 0;
    bool bad = false;
    for (int c = 0; c < classes; ++c) {
        const T each = p.logits[c * p.step];
        bad = bad || each != each;
        most = each > most ? each : most;
    }
    for (int c = 0; c < classes; ++c) sum += exp(p.logits[c * p.step] - most);
    T loss = log(sum) - (p.logits[p.y * p.step] - most);
    if (bad) loss = not_a_number();
    y[i] = p.share == 0 ? (T)0 : loss * p.share;
    if (shares) shares[i] = p.share;
}

__device__ inline T block_sum(const T* x, Index count, T (&shared)[BLOCK])
{
    T sum = 0;
    for (Index i = threadIdx.x; i < count; i += BLOCK) sum += x[i];
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    sum = shared[0];
    __syncthreads();
    return sum;
}

// The sum of the losses, by the sum of what they count where the mean is asked for; one block
extern "C" __global__ void reduced(const T* losses, const T* shares, T* y, int mean, Index count)
{
    __shared__ T shared[BLOCK];
    const T sum = block_sum(losses, count, shared);
    T by = 1;
    if (mean) by = block_sum(shares, count, shared);
    if (threadIdx.x == 0) *y = by == 0 ? not_a_number() : sum / by;
}

// What all targets count; one block
extern "C" __global__ void total_share(
    const void* targets, const T* weight, T* y, Sizes s, int wide, int classes, long long ignored, Index count)
{
    __shared__ T shared[BLOCK];
    T sum = 0;
    Strides nowhere = {};
    for (Index i = threadIdx.x; i < count; i += BLOCK)
        sum += place((const T*)0, targets, weight, nowhere, s.sizes, s.target, wide, classes, ignored, i).share;
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *y = shared[0];
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
    T most = p.logits[0], sum = 0;
    bool bad = false;
    for (int c = 0; c < classes; ++c) {
        const T each = p.logits[c * p.step];
        bad = bad || each != each;
        most = each > most ? each : most;
    }
    for (int c = 0; c < classes; ++c) sum += exp(p.logits[c * p.step] - most);
    if (upstream) dy = upstream[each ? i : 0];
    const T all = by ? (*by == 0 ? (T)1 : *by) : (T)1;
    for (int c = 0; c < classes; ++c) {
        const T probability = bad ? not_a_number() : exp(p.logits[c * p.step] - most) / sum;
        to[c] = (probability - (c == p.y ? (T)1 : (T)0)) * p.share * dy / all;
    }
}
"""
)
SIZES = np.dtype([("sizes", np.int64, (3,)), ("target", np.int64, (4,))])
BLOCK = 512


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
        losses = cupy.empty(target.shape, logits.dtype)
        mean = self.reduction == "mean"
        shares = cupy.empty(target.shape, logits.dtype) if mean else None
        arrays = (address(logits), address(target), dense(weight), losses, shares)
        SOURCE.each("losses", self.dtype, losses.size, *arrays, strides(logits), *self._order(target, classes))
        if self.reduction == "none":
            return losses
        value = cupy.empty((), logits.dtype)
        count = np.int64(losses.size)
        SOURCE.launch("reduced", self.dtype, (1,), (BLOCK,), losses, shares, value, int(mean), count)
        return value

    def backward(self, dy: Array | float, logits: Array, target: Array, weight: Array | None) -> Array:
        """The gradient ``(N, *S, C)``, for an upstream gradient that is a number, 0-d or ``(N, *S)``."""
        cupy, classes = library(), logits.shape[-1]
        order, w = self._order(target, classes), dense(weight)
        by = None
        if self.reduction == "mean":
            by = cupy.empty((), logits.dtype)
            count = np.int64(prod(target.shape))
            SOURCE.launch("total_share", self.dtype, (1,), (BLOCK,), address(target), w, by, *order, count)
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
