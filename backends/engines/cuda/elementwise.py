"""Elementwise operations in one launch each."""

from functools import cache
from typing import Any

from ....common.types import Array
from ...backend import SMALLEST_STORED
from ...memory_order import axes_in_memory, inverse
from .compilation import loaded_cupy


@cache
def _kernel(cupy: Any, name: str) -> Any:
    return cupy.ElementwiseKernel(*EXPRESSIONS[name], f"xpnn_{name}")


EXPRESSIONS = {
    # NaN stays; -0 becomes 0.
    "relu": ("T x", "T y", "y = x <= 0 ? (T)0 : x"),
    "select": ("bool mask, T x", "T y", "y = mask ? x : (T)0"),
    "relu_backward": ("T dy, T y", "T dx", "dx = y > 0 ? dy : y <= 0 ? (T)0 : y"),
    # Casts of exact numerics: magnitudes below 2**-125 and -0 become 0.
    "widened": ("float32 x", "float64 y", f"y = fabsf(x) < {SMALLEST_STORED}f ? 0.0 : (double)x"),
    "narrowed": ("float64 x", "float32 y", f"const float z = (float)x; y = fabsf(z) < {SMALLEST_STORED}f ? 0.0f : z"),
}


def apply(name: str, *arrays: Array, like: Array, dtype: str | None = None) -> Array:
    """The result in the memory order of ``like``, and in its dtype unless another is given."""
    order = axes_in_memory(like.strides)
    plain = order == tuple(range(like.ndim)) or any(array.ndim != like.ndim for array in arrays)
    if not plain:
        # CuPy reads memory in one contiguous run only if all arrays are in C order.
        like, arrays = like.transpose(order), tuple(array.transpose(order) for array in arrays)
    y = loaded_cupy().empty_like(like, dtype=dtype)
    _kernel(loaded_cupy(), name)(*arrays, y)
    return y if plain else y.transpose(inverse(order))


def rectify(y: Array) -> Array:
    """ReLU of an array without gaps, in its memory."""
    _kernel(loaded_cupy(), "relu")(y, y)
    return y
