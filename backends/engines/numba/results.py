"""Arrays that compiled code writes its results to."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...memory_order import axes_in_memory, inverse


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array for the result of a job, with any numbers in it, C-contiguous."""
    return np.empty(shape, dtype)


def empty_like(x: Array) -> Array:
    """An array like ``x``, whose axes have the same order in memory."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    order = axes_in_memory(x.strides)
    return empty(tuple([x.shape[axis] for axis in order]), x.dtype).transpose(inverse(order))
