"""Arrays for the results of compiled operations."""

import numpy as np

from ....common.types import Array


def empty(shape: int | tuple[int, ...], dtype: str) -> Array:
    """A new array, whose contents are undefined."""
    return np.empty(shape, dtype)
