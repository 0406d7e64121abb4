"""Memory for what compiled operations return."""

from typing import Any

import numpy as np

from ....common.types import Array


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised array, for results and for what an operation keeps from one of its jobs to the next."""
    return np.empty(shape, dtype)
