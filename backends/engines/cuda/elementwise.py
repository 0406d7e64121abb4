"""Entry by entry, in one launch each."""

from functools import cache
from typing import Any

from ...types import Array
from .source import library


@cache
def _kernel(cupy: Any, name: str) -> Any:
    return cupy.ElementwiseKernel(*KERNELS[name], f"xpnn_{name}")


KERNELS = {
    # NaN stays, -0 becomes 0.
    "positive": ("T x", "T y", "y = x <= 0 ? (T)0 : x"),
    "select": ("bool mask, T x", "T y", "y = mask ? x : (T)0"),
    "gate": ("T dy, T y", "T dx", "dx = y <= 0 ? (T)0 : dy"),
}


def apply(name: str, *arrays: Array, like: Array) -> Array:
    """The kernel's result, in the memory order of ``like``."""
    y = library().empty_like(like)
    _kernel(library(), name)(*arrays, y)
    return y
