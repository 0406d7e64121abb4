"""Arrays that compiled code writes its results to."""

from typing import Any

import numpy as np

from ....common.types import Array


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array for the result of a job, with any numbers in it, C-contiguous."""
    return np.empty(shape, dtype)
