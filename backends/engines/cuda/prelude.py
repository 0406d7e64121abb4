"""CUDA C++ at the start of every source: structs of strides and windows and loops over cells; their NumPy counterparts.

Kernels work on arrays ``(N, S0, S1, S2, C)``. An array with fewer spatial axes gets leading ones of size 1. Structs are
passed by value: the host builds each as a 0-d array of the dtype with the same fields.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import Windows

#: Most spatial axes that kernels support.
MOST_AXES = 3

PRELUDE = """
typedef long long Index;

// Without this attribute a compiler may copy a struct of arguments into each thread that reads it.
#ifndef __grid_constant__
#define __grid_constant__
#endif

__device__ inline T not_a_number() { return (T)nan(""); }

// Strides of an array (N, S0, S1, S2, C), in entries; axes that the array lacks come first, with size 1.
struct Strides { Index n, s[3], c; };

// Windows over an input: sizes of input and output, kernel, stride, dilation, and the padding before each axis.
struct Geometry { int input[3], output[3], kernel[3], stride[3], dilation[3], before[3]; };

// The index along the last axis of a flat index; what remains is the flat index of the axes before.
__device__ inline int part(Index &rest, int size) {
    int at = (int)(rest % size);
    rest /= size;
    return at;
}

// Offset of the cell (i0, i1, i2) along the three spatial axes.
__device__ inline Index along(const Strides &at, int i0, int i1, int i2) {
    return i0 * at.s[0] + i1 * at.s[1] + i2 * at.s[2];
}

// Calls f(k, i0, i1, i2, inside) for each cell k of the window at o, in row-major order; inside is false in padding.
template <class F> __device__ inline void each_cell(const Geometry &g, int o0, int o1, int o2, F f) {
    int k = 0;
    for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
        const int i0 = o0 * g.stride[0] + k0 * g.dilation[0] - g.before[0];
        for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
            const int i1 = o1 * g.stride[1] + k1 * g.dilation[1] - g.before[1];
            for (int k2 = 0; k2 < g.kernel[2]; ++k2, ++k) {
                const int i2 = o2 * g.stride[2] + k2 * g.dilation[2] - g.before[2];
                const bool below = i0 < g.input[0] && i1 < g.input[1] && i2 < g.input[2];
                f(k, i0, i1, i2, i0 >= 0 && i1 >= 0 && i2 >= 0 && below);
            }
        }
    }
}

// Calls f(k, o0, o1, o2) for each window whose cell k is the input's cell i, in the order of k.
template <class F> __device__ inline void each_window(const Geometry &g, int i0, int i1, int i2, F f) {
    int k = 0;
    for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
        const int a0 = i0 + g.before[0] - k0 * g.dilation[0];
        for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
            const int a1 = i1 + g.before[1] - k1 * g.dilation[1];
            for (int k2 = 0; k2 < g.kernel[2]; ++k2, ++k) {
                const int a2 = i2 + g.before[2] - k2 * g.dilation[2];
                if (a0 < 0 || a1 < 0 || a2 < 0 || a0 % g.stride[0] || a1 % g.stride[1] || a2 % g.stride[2]) continue;
                const int o0 = a0 / g.stride[0], o1 = a1 / g.stride[1], o2 = a2 / g.stride[2];
                if (o0 < g.output[0] && o1 < g.output[1] && o2 < g.output[2]) f(k, o0, o1, o2);
            }
        }
    }
}
"""
GEOMETRY = np.dtype(
    [(name, np.int32, (MOST_AXES,)) for name in ("input", "output", "kernel", "stride", "dilation", "before")]
)
STRIDES = np.dtype([("n", np.int64), ("s", np.int64, (MOST_AXES,)), ("c", np.int64)])


@lru_cache(maxsize=4096)
def geometry(spatial: tuple[int, ...], windows: Windows, padding: tuple[tuple[int, int], ...]) -> Any:
    """The struct ``Geometry`` for windows over an input of that size."""
    missing = MOST_AXES - len(spatial)
    ones, before = (1,) * missing, (0,) * missing + tuple(low for low, _ in padding)
    return np.array(
        (
            ones + spatial,
            ones + windows.count,
            ones + windows.kernel,
            ones + windows.stride,
            ones + windows.dilation,
            before or (0,) * MOST_AXES,
        ),
        dtype=GEOMETRY,
    )


def strides(x: Array) -> Any:
    """The struct ``Strides`` for ``x (N, *S, C)``."""
    return strides_of(x.strides, x.itemsize)


@lru_cache(maxsize=4096)
def strides_of(strides: tuple[int, ...], itemsize: int) -> Any:
    """The struct ``Strides`` for an array ``(N, *S, C)`` of these strides in bytes."""
    entries = [stride // itemsize for stride in strides]
    spatial = [0] * (MOST_AXES - len(entries) + 2) + entries[1:-1]
    return np.array((entries[0], spatial, entries[-1]), dtype=STRIDES)
