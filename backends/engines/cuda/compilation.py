"""Compile CUDA C++ for a dtype on first use, and launch its kernels.

A source is written for a number type ``T``. Its kernels get arrays as addresses and everything else by value, so that a
launch copies nothing from the host. Every sum in a kernel has one order, given by shapes, and nothing is added
atomically: the same input gives the same bits on every run.
"""

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ....common.types import Array
from .prelude import PRELUDE

#: C++ number types that kernels are compiled for.
C_TYPES = {"float32": "float", "float64": "double"}
#: Threads of a block in kernels with one thread for each entry.
THREADS = 256
#: Most entries of an array: kernels count in 64 bits, but a grid has at most 2**31 - 1 blocks.
MOST_ENTRIES = (2**31 - 1) * THREADS

NULL = np.uint64(0)


def loaded_cupy() -> Any:
    """The module ``cupy``, which the caller of a kernel has imported."""
    return sys.modules["cupy"]


class Source:
    """CUDA C++ source of one or more kernels, which are compiled together, for each dtype separately.

    Parameters
    ----------
    text : str
        The source, without `PRELUDE`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._functions: dict[tuple[str, str], Any] = {}

    def code(self, dtype: str) -> str:
        """The complete source for a dtype. It includes no header: NVRTC has none of C's macros."""
        return f"typedef {C_TYPES[dtype]} T;\n{PRELUDE}\n{self.text}"

    def launch(self, name: str, dtype: str, grid: Sequence[int], block: Sequence[int], *arguments: Any) -> None:
        """Launch a kernel on the current stream.

        Arrays must be C-contiguous, or be given by `address` together with their strides. Integers are passed as 32
        bits unless they are `numpy.int64`; None is passed as a null pointer.
        """
        key = (name, dtype)
        if key not in self._functions:
            module = loaded_cupy().RawModule(code=self.code(dtype), options=("-std=c++17",))
            self._functions[key] = module.get_function(name)
        self._functions[key](tuple(grid), tuple(block), tuple(map(_argument, arguments)))

    def each(self, name: str, dtype: str, count: int, *arguments: Any) -> None:
        """Launch a kernel with one thread for each of ``count`` entries; ``count`` is its last argument."""
        if count:
            self.launch(name, dtype, (-(-count // THREADS),), (THREADS,), *arguments, np.int64(count))


def _argument(value: Any) -> Any:
    if type(value) is int:
        return np.int32(value)
    if value is None:
        return NULL
    if isinstance(value, loaded_cupy().ndarray):
        if not value.flags.c_contiguous:
            given = f"shape {value.shape} with strides {value.strides}"
            raise ValueError(f"arrays of a kernel must be C-contiguous, got {given}")
        _require_current_device(value)
    return value


def _require_current_device(x: Array) -> None:
    """Raise `ValueError` for an array on another device than the current one, where its address is invalid."""
    current = loaded_cupy().cuda.runtime.getDevice()
    if x.data.device_id != current:
        raise ValueError(
            f"arrays of a kernel must be on the current device {current}, got one on device {x.data.device_id}: use "
            f"cupy.cuda.Device"
        )


def address(x: Array) -> Any:
    """Address of an array's first entry, for any strides. The array must outlive the launch."""
    _require_current_device(x)
    return np.uint64(x.data.ptr)


def dense(x: Array | None) -> Array | None:
    """The array itself if it is C-contiguous, else a C-contiguous copy."""
    return None if x is None else loaded_cupy().ascontiguousarray(x)


def rows(x: Array) -> tuple[Array, int]:
    """``x (*R, C)`` as ``(R, C)`` with contiguous rows, copied if necessary, and the stride of its rows in entries.

    The stride is 0 if one row is broadcast to all, and negative if rows are stored backwards.
    """
    found = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    if found.strides[-1] != found.itemsize and found.shape[-1] > 1:
        found = loaded_cupy().ascontiguousarray(found)
    return found, found.strides[0] // found.itemsize
