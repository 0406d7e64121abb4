"""16-bit floats on CuPy, which has no bfloat16: integers with the same bits."""

import importlib
from functools import cache
from typing import Any

from ...common.types import Array
from ..narrow import NarrowFormat


def narrow_format(name: str) -> NarrowFormat:
    """The format of that name."""
    if name == "float16":
        return NarrowFormat(name, _to_float16, _to_float32)
    return NarrowFormat(name, to_bfloat16, _from_bfloat16)


def to_16_bits(x: Array, name: str) -> Array:
    """float32 as the 16-bit numbers that cuBLAS multiplies, in the memory order of ``x``."""
    return _to_float16(x) if name == "float16" else to_bfloat16(x)


def _to_float16(x: Array) -> Array:
    return x.astype("float16", order="K")


def _to_float32(x: Array) -> Array:
    return x.astype("float32", order="K")


def to_bfloat16(x: Array) -> Array:
    """float32 rounded to nearest, ties to even, as integers with the bits of bfloat16."""
    return _in_order(_rounding(), x)


def _from_bfloat16(x: Array) -> Array:
    return _in_order(_widening(), x)


def _in_order(kernel: Any, x: Array) -> Array:
    """The kernel's result in the memory order of its argument: CuPy's is in C order."""
    from ..memory_order import axes_in_memory, inverse

    order = axes_in_memory(x.strides)
    return kernel(x.transpose(order)).transpose(inverse(order))


@cache
def _rounding() -> Any:
    return importlib.import_module("cupy").ElementwiseKernel(
        "float32 x",
        "uint16 y",
        """
        unsigned int bits = __float_as_uint(x);
        y = isnan(x) ? (bits >> 16) | 0x40 : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        """,
        "xpnn_to_bfloat16",
    )


@cache
def _widening() -> Any:
    return importlib.import_module("cupy").ElementwiseKernel(
        "uint16 x", "float32 y", "y = __uint_as_float((unsigned int)x << 16)", "xpnn_from_bfloat16"
    )
