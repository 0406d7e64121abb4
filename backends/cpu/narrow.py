"""16-bit floats on NumPy, whose bfloat16 are integers with the same bits."""

import numpy as np

from ...common.types import Array
from ..narrow import NarrowFormat


def narrow_format(name: str) -> NarrowFormat:
    """The format of that name."""
    if name == "float16":
        return NarrowFormat(name, _to_float16, _from_float16)
    return NarrowFormat(name, _to_bfloat16, _from_bfloat16)


def _to_float16(x: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(x).astype(np.float16)


def _from_float16(x: Array) -> Array:
    return x.astype(np.float32)


def _to_bfloat16(x: Array) -> Array:
    bits = np.asarray(x).view(np.uint32)
    # Half a unit of the upper 16 bits, less the smallest unit where they are even: ties go to even numbers.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # The sum may carry a NaN to infinity; it becomes a quiet NaN.
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def _from_bfloat16(x: Array) -> Array:
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
