"""Rounding of floats to narrower dtypes; NumPy has no bfloat16, so its numbers are integers with the same bits."""

from typing import Any

import numpy as np


def rounded(array: np.ndarray[Any, Any], dtype: str, name: str) -> np.ndarray[Any, Any]:
    """Floats converted to another dtype, to nearest, ties to even; bfloat16 as integers with the same bits.

    Raises
    ------
    ValueError
        For a finite number beyond the dtype's range; ``name`` is in the message.
    """
    finite = np.isfinite(array)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "bfloat16":
            bits = _to_bfloat16(array)
            fits = (bits & 0x7F80) != 0x7F80
        else:
            bits = array.astype(dtype)
            fits = np.isfinite(bits)
    if (lost := finite & ~fits).any():
        most = float(np.max(np.abs(array[lost])))
        raise ValueError(f"{name} reaches {most:g}, which {dtype} can't hold; choose a wider dtype")
    return bits


def _to_bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    narrow = array.astype(np.float32)
    bits = np.ascontiguousarray(narrow).view(np.uint32).reshape(array.shape)
    if array.dtype == np.float64:
        # Rounding twice could miss the nearest number, so float32 is rounded to odd: what it can't hold ends in a 1 bit
        # and is no tie.
        larger = np.abs(narrow.astype(np.float64)) > np.abs(array)
        bits = np.where(narrow.astype(np.float64) == array, bits, (bits - larger) | 1).astype(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # NaN becomes a quiet NaN.
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype(np.uint16)
