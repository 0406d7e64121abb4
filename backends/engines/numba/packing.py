"""The arguments of a job as words of memory: for an array its address and sizes, for a number its bits.

Python takes 0.3 microseconds to find the address and the sizes of one array, and a step of a small net has hundreds. So
compiled code reads them in the array objects, if these have the layout of CPython and NumPy (`_has_layout`); NumPy
promises it to extensions in C (``PyArrayObject``).
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....common.types import Array
from .atomics import atomic_load
from .compiler import njit

# Bytes from the beginning of an array object to its fields, and a bit of the flags.
_HEADER = object.__basicsize__
_KIND = 8
_DATA, _AXES, _SIZES, _FLAGS = _HEADER, _HEADER + 8, _HEADER + 16, _HEADER + 48
_C_CONTIGUOUS = 1
_NDARRAY = id(np.ndarray)


@njit(cache=True)
def _pack(values: Any, axes: Any, words: Any, ndarray: Any) -> Any:
    """Write words for array objects at these addresses, or for numbers where ``axes`` is below 0.

    Returns whether there are as many values, and all objects are of that class, C-contiguous and of that many axes.
    """
    at = 0
    if values.shape[0] != axes.shape[0]:
        return False
    for i in range(values.shape[0]):
        if axes[i] < 0:
            words[at] = values[i]
            at += 1
            continue
        where = values[i]
        if atomic_load(where + _KIND) != ndarray:
            return False
        if atomic_load(where + _AXES) & 0xFFFFFFFF != axes[i] or atomic_load(where + _FLAGS) & _C_CONTIGUOUS == 0:
            return False
        words[at] = atomic_load(where + _DATA)
        sizes = atomic_load(where + _SIZES)
        for axis in range(axes[i]):
            words[at + 1 + axis] = atomic_load(sizes + 8 * axis)
        at += 1 + axes[i]
    return True


def _pack_in_python(values: list[Any], axes: Array, words: Array) -> bool:
    """`_pack` for arrays and numbers."""
    found: list[int] = []
    if len(values) != len(axes):
        return False
    for value, count in zip(values, axes, strict=True):
        if count < 0:
            found.append(value)
        elif value.ndim != count or not value.flags.c_contiguous:
            return False
        else:
            found += [value.ctypes.data, *value.shape]
    words[:] = found
    return True


def pack(arguments: Sequence[Any], numbers: Sequence[tuple[int, int]], axes: Array, words: Array) -> bool:
    """Write the words of arrays, and of numbers, given by place and word; ``axes`` is below 0 for these.

    Returns whether there are as many arguments, and all arrays are C-contiguous and have that many axes.
    """
    if BY_OBJECT:
        values = list(map(id, arguments))
        for place, number in numbers:
            values[place] = number
        if _pack(np.array(values, np.int64), axes, words, _NDARRAY):
            return True
    # A subclass may have another layout.
    values = list(arguments)
    for place, number in numbers:
        values[place] = number
    return _pack_in_python(values, axes, words)


@njit(cache=True)
def _read_addresses(objects: Any, ndarray: Any) -> Any:
    for i in range(objects.shape[0]):
        if atomic_load(objects[i] + _KIND) != ndarray:
            return False
        objects[i] = atomic_load(objects[i] + _DATA)
    return True


def addresses_of(arrays: list[Array]) -> Array:
    """The addresses of the first entries of arrays, int64."""
    if BY_OBJECT:
        found = np.array(list(map(id, arrays)), np.int64)
        if _read_addresses(found, _NDARRAY):
            return found
    # A subclass may have another layout.
    return np.array([x.ctypes.data for x in arrays], np.int64)


def _has_layout() -> bool:
    """Whether array objects have the layout that `_pack` reads."""
    if sys.implementation.name != "cpython" or _HEADER != 16 or np.dtype(np.intp).itemsize != 8:
        return False
    examples: list[Array] = [np.zeros((2, 3, 5), np.float32), np.zeros((4, 6), np.int8)[:, ::2], np.zeros(())]
    for x in examples:
        words = np.zeros(1 + x.ndim, np.int64)
        packed = _pack(np.array([id(x)], np.int64), np.array([x.ndim], np.int64), words, _NDARRAY)
        if packed != x.flags.c_contiguous or (packed and words.tolist() != [x.ctypes.data, *x.shape]):
            return False
    return True


#: Whether compiled code reads array objects.
BY_OBJECT = _has_layout()
