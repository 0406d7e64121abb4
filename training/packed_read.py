"""Several arrays from the device in one transfer."""

from collections.abc import Sequence
from math import prod
from typing import Any

from ..backends import Backend
from ..backends.execution.blocks import concat_all
from ..common.types import dtype_name
from .optimizers.counters import widest


def read_all(b: Backend, values: Sequence[Any]) -> list[Any]:
    """The values on the host: 0-d arrays as Python's numbers, others as NumPy arrays, anything else unchanged.

    The arrays are joined as float64, in which counts below 2**53 are exact, and read at once, which waits for the
    device. On a device without float64, integers and floats are read separately.
    """
    found = list(values)
    groups: dict[bool, list[int]] = {}
    for position, value in enumerate(values):
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            is_float = dtype_name(value.dtype).startswith("float")
            groups.setdefault(is_float or b.has("float64"), []).append(position)
    for as_float, places in groups.items():
        _read_group(b, found, places, as_float)
    return found


def _read_group(b: Backend, found: list[Any], places: list[int], as_float: bool) -> None:
    """Replace the arrays at some places by what they hold."""
    xp = b.xp
    arrays = [found[place] for place in places]
    if len(arrays) == 1:
        joined = b.to_numpy(arrays[0]).reshape(-1)
    else:
        dtype = widest(b) if as_float else xp.int64
        with b.context():
            flat = [xp.astype(xp.reshape(array, (-1,)), dtype) for array in arrays]
            joined = b.to_numpy(concat_all(flat, 0, xp))
    start = 0
    for place, array in zip(places, arrays, strict=True):
        size = prod(array.shape)
        part = joined[start : start + size].reshape(tuple(array.shape))
        start += size
        if not dtype_name(array.dtype).startswith("float"):
            part = part.astype("int64")
        found[place] = part if part.ndim else part.item()
