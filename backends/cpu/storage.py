"""Conversions between float32, in which exact numerics stores arrays, and float64, in which it computes, for NumPy."""

from collections.abc import Callable

from ...common.types import Array
from .. import overrides
from ..engines import numba

# Entries of the smallest array for which a compiled job takes less time than array functions.
LEAST_ENTRIES = 1 << 12


def converted(x: Array, way: str, by_arrays: Callable[[Array], Array]) -> Array:
    """``by_arrays(x)``, or the same bits in one pass: ``way`` is "widen" to float64 or "narrow" to float32."""
    compiled = None
    if hasattr(x, "strides") and not overrides.is_small(x.size, LEAST_ENTRIES):
        compiled = numba.prepare("exact elementwise", way, "float32")
    return by_arrays(x) if compiled is None else compiled(x)
