"""CUDA C++ sources: compiled for a dtype on first use, and launched.

A source is written for a number type ``T``. Its kernels take arrays by address and everything else by value in structs,
so that a launch copies nothing from the host. Every sum in them has one order, given by shapes: the same input gives
the same bits on every run, and nothing is added up atomically.
"""

import sys
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import Windows

#: Number types that kernels are compiled for.
TYPES = {"float32": "float", "float64": "double"}
#: Most spatial axes that kernels know.
AXES = 3
#: Threads of a block where each computes alone.
THREADS = 256
#: Most entries of an array: kernels count in 64 bits, but a grid has 2**31 - 1 blocks at most.
LARGEST = (2**31 - 1) * THREADS

#: The address of no array.
NULL = np.uint64(0)

PRELUDE = """
typedef long long Index;

// Without it a compiler may copy a struct of arguments to each thread that looks into it.
#ifndef __grid_constant__
#define __grid_constant__
#endif

__device__ inline T not_a_number() { return (T)nan(""); }

// Places in an array (N, S0, S1, S2, C) in entries; axes that it lacks come first and are 1.
struct Strides { Index n, s[3], c; };

// Windows over an input: sizes of input and output, kernel, stride, dilation, and the cells of padding before it.
struct Geometry { int input[3], output[3], kernel[3], stride[3], dilation[3], before[3]; };

// A flat number of a thread as places, the last axis first.
__device__ inline int part(Index &rest, int size) {
    int at = (int)(rest % size);
    rest /= size;
    return at;
}

// The place of a cell along the three axes.
__device__ inline Index along(const Strides &at, int i0, int i1, int i2) {
    return i0 * at.s[0] + i1 * at.s[1] + i2 * at.s[2];
}

// f(k, i0, i1, i2, inside) for each cell k of the window at o, in row-major order, within the input or not.
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

// f(k, o0, o1, o2) for each window whose cell k is the cell of the input at i, in the order of k.
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
    [(name, np.int32, (AXES,)) for name in ("input", "output", "kernel", "stride", "dilation", "before")]
)
STRIDES = np.dtype([("n", np.int64), ("s", np.int64, (AXES,)), ("c", np.int64)])


def library() -> Any:
    """CuPy, which whoever calls a kernel has loaded."""
    return sys.modules["cupy"]


class Source:
    """Kernels in one piece of CUDA C++, compiled together for each dtype.

    Parameters
    ----------
    text : str
        The source, after `PRELUDE`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._functions: dict[tuple[str, str], Any] = {}

    def code(self, dtype: str) -> str:
        """All of the source for a dtype; no header is included, and NVRTC knows none of C's macros."""
        return f"typedef {TYPES[dtype]} T;\n{PRELUDE}\n{self.text}"

    def launch(self, name: str, dtype: str, grid: Sequence[int], block: Sequence[int], *arguments: Any) -> None:
        """Start a kernel on the current stream.

        Arrays must be in one piece of memory in C order, or be given by `address` with what tells where entries lie;
        integers are 32 bits wide, unless they are given as `numpy.int64`; None is the address of no array.
        """
        key = (name, dtype)
        if key not in self._functions:
            module = library().RawModule(code=self.code(dtype), options=("-std=c++17",))
            self._functions[key] = module.get_function(name)
        self._functions[key](tuple(grid), tuple(block), tuple(map(_argument, arguments)))

    def each(self, name: str, dtype: str, count: int, *arguments: Any) -> None:
        """Start a kernel with a thread for each of ``count`` entries; ``count`` is its last argument. None for 0."""
        if count:
            self.launch(name, dtype, (-(-count // THREADS),), (THREADS,), *arguments, np.int64(count))


def _argument(value: Any) -> Any:
    if type(value) is int:
        return np.int32(value)
    if value is None:
        return NULL
    if isinstance(value, library().ndarray):
        if not value.flags.c_contiguous:
            pieces = f"shape {value.shape} with strides {value.strides}"
            raise ValueError(f"a kernel takes arrays in one piece of memory, got {pieces}")
        _require_here(value)
    return value


def _require_here(x: Array) -> None:
    """Raise `ValueError` for an array on another device than the current one, whose address means nothing here."""
    here = library().cuda.runtime.getDevice()
    if x.data.device_id != here:
        raise ValueError(
            f"an array is on device {x.data.device_id}, the current device is {here}: use cupy.cuda.Device"
        )


def address(x: Array) -> Any:
    """Where an array begins, whatever its strides; it must outlive the launch."""
    _require_here(x)
    return np.uint64(x.data.ptr)


def dense(x: Array | None) -> Array | None:
    """An array in one piece of memory, a copy if it is not."""
    return None if x is None else library().ascontiguousarray(x)


@lru_cache(maxsize=4096)
def strides_of(strides: tuple[int, ...], itemsize: int) -> Any:
    """The struct ``Strides`` for an array ``(N, *S, C)`` of these strides in bytes."""
    entries = [stride // itemsize for stride in strides]
    spatial = [0] * (AXES - len(entries) + 2) + entries[1:-1]
    return np.array((entries[0], spatial, entries[-1]), dtype=STRIDES)


def strides(x: Array) -> Any:
    """The struct ``Strides`` for ``x (N, *S, C)``."""
    return strides_of(x.strides, x.itemsize)


@lru_cache(maxsize=4096)
def geometry(spatial: tuple[int, ...], windows: Windows, padding: tuple[tuple[int, int], ...]) -> Any:
    """The struct ``Geometry`` for windows over an input of that size."""
    missing = AXES - len(spatial)
    ones, before = (1,) * missing, (0,) * missing + tuple(low for low, _ in padding)
    return np.array(
        (
            ones + spatial,
            ones + windows.count,
            ones + windows.kernel,
            ones + windows.stride,
            ones + windows.dilation,
            before or (0,) * AXES,
        ),
        dtype=GEOMETRY,
    )


def rows(x: Array) -> tuple[Array, int]:
    """``x (*R, C)`` as rows of neighbours, a copy where they are none, and the entries from row to row.

    They are 0 where one row stands for all, and below 0 where rows lie backwards.
    """
    found = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    if found.strides[-1] != found.itemsize and found.shape[-1] > 1:
        found = library().ascontiguousarray(found)
    return found, found.strides[0] // found.itemsize
