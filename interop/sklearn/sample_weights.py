"""The check of weights of samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from ...backends import to_host
from .arrays import is_dispatched


def checked_weights(sample_weight: Any, samples: int) -> NDArray[np.float64] | None:
    """Weights ``(N,)`` in float64, on the host; None for None.

    Raises
    ------
    ValueError
        For weights of another shape, negative ones, NaN and infinities, or if all are 0.
    """
    if sample_weight is None:
        return None
    if np.isscalar(sample_weight):
        sample_weight = np.full(samples, sample_weight)
    elif is_dispatched(sample_weight):
        sample_weight = to_host(sample_weight)
    weights: NDArray[np.float64] = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weights.ndim}D array. Expected shape (N,)")
    if weights.shape != (samples,):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected {(samples,)}!")
    if (weights < 0.0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights
