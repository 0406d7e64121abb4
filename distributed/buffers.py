"""Arrays as the flat buffers that MPI and NCCL accept, and back."""

from typing import Any

import numpy as np

from ..backends import backend_of, to_host
from ..common import checks
from ..common.types import Array, dtype_name

# What the sum or maximum of MPI and NCCL is defined for.
_DTYPES = ("float32", "float64", "int32", "int64", "uint8")


def to_buffer(array: Array) -> Any:
    """A flat, contiguous copy: of CuPy for its arrays, else of NumPy.

    Raises
    ------
    TypeError
        For anything but an array of numbers of a dtype that can be exchanged.
    """
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise TypeError(f"array must be an array of a backend, got {checks.shown(array)}; make one: np.asarray(...)")
    if dtype_name(array.dtype) not in _DTYPES:
        raise TypeError(f"array must have dtype {', '.join(_DTYPES)}, got {dtype_name(array.dtype)}; convert it")
    if is_native(array):
        return array.flatten()
    return np.array(to_host(array)).reshape(-1)


def from_buffer(buffer: Any, like: Array) -> Array:
    """A buffer as an array of the shape and backend of another one."""
    shaped = buffer.reshape(tuple(like.shape))
    return shaped if is_native(like) else backend_of(like).asarray(shaped, dtype_name(like.dtype))


def is_native(array: Any) -> bool:
    """Whether an array is one of NumPy or CuPy, whose memory MPI or NCCL can read."""
    return isinstance(array, np.ndarray) or type(array).__module__.partition(".")[0] == "cupy"


def in_order_of_floats(buffer: Any) -> Any:
    """Integers in the order of floats, where NaN is the largest.

    The bits of a positive float, read as an integer, are larger for a larger float; those of a negative one are
    smaller, so all but the sign are inverted.
    """
    kind = f"int{8 * buffer.dtype.itemsize}"
    bits = buffer.view(kind).copy()
    largest = np.iinfo(kind).max
    # One pattern of NaN, without a sign.
    bits[buffer != buffer] = largest
    return bits ^ ((bits >> (8 * buffer.dtype.itemsize - 1)) & largest)


def floats_in_order(ordered: Any, dtype: Any) -> Any:
    """The floats of `in_order_of_floats`."""
    largest = np.iinfo(ordered.dtype).max
    bits = ordered ^ ((ordered >> (8 * ordered.dtype.itemsize - 1)) & largest)
    return bits.view(dtype)
