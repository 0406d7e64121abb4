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
from .atomics import atomic_load, atomic_store
from .compiler import njit

# Bytes from the beginning of an array object to its fields, and a bit of the flags.
_HEADER = object.__basicsize__
_KIND = 8
_DATA, _AXES, _SIZES, _STRIDES = _HEADER, _HEADER + 8, _HEADER + 16, _HEADER + 24
_DTYPE, _FLAGS = _HEADER + 40, _HEADER + 48
_C_CONTIGUOUS, _ALIGNED = 1, 0x100
_NDARRAY, _NONE = id(np.ndarray), id(type(None))
# The same in tuples (``PyTupleObject``).
_ITEMS = _HEADER + 8


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


def object_form(arrays: Sequence[Array | None]) -> Array:
    """What `relocate` compares arrays with: class, and for an array axes, dtype, sizes and strides, each a word."""
    words = [len(arrays)]
    for x in arrays:
        words += [_NONE, -1] if x is None else [_NDARRAY, x.ndim, id(x.dtype), *x.shape, *x.strides]
    return np.array(words, np.int64)


@njit(cache=True)
def relocate(objects: Any, form: Any, moved: Any, words: Any) -> Any:
    """Write addresses of arrays into words, if the first of the arrays have a form; returns whether they have.

    All arguments are addresses: ``objects`` of a tuple of arrays, ``form`` of what `object_form` returned, ``words`` of
    the words. At ``moved`` there are numbers: how many addresses there are; the place in the tuple of an array that
    begins at a multiple of so many bytes, and these; and for each address its word, the place of its array in the
    tuple, and its distance in bytes from the beginning of that.
    """
    items, at = objects + _ITEMS, form + 8
    for i in range(atomic_load(form)):
        where = atomic_load(items + 8 * i)
        if atomic_load(where + _KIND) != atomic_load(at):
            return False
        axes = atomic_load(at + 8)
        at += 16
        if axes < 0:
            continue
        if atomic_load(where + _AXES) & 0xFFFFFFFF != axes or atomic_load(where + _DTYPE) != atomic_load(at):
            return False
        if atomic_load(where + _FLAGS) & _ALIGNED == 0:
            return False
        sizes, strides = atomic_load(where + _SIZES), atomic_load(where + _STRIDES)
        at += 8
        for axis in range(axes):
            if atomic_load(sizes + 8 * axis) != atomic_load(at + 8 * axis):
                return False
            if atomic_load(strides + 8 * axis) != atomic_load(at + 8 * (axes + axis)):
                return False
        at += 16 * axes
    aligned, alignment = atomic_load(moved + 8), atomic_load(moved + 16)
    for i in range(atomic_load(moved)):
        row = moved + 24 * (i + 1)
        number = atomic_load(row + 8)
        data = atomic_load(atomic_load(items + 8 * number) + _DATA)
        if number == aligned:
            data = (data + alignment - 1) // alignment * alignment
        atomic_store(words + 8 * atomic_load(row), data + atomic_load(row + 16))
    return True


def _relocates() -> bool:
    """Whether tuples and arrays have the layout that `relocate` reads."""
    x, y = np.zeros((2, 3, 5), np.float32)[:, ::2], np.zeros(4)
    moved, words = np.array([2, 2, 64, 1, 0, 8, 0, 2, 0], np.int64), np.zeros(2, np.int64)
    form = object_form((x, None))
    addresses = [each.ctypes.data for each in (form, moved, words)]
    objects = [(each, None, y) for each in (x, x[::-1], x[:1], x * 1)]
    fits = [relocate(id(each), *addresses) for each in objects]
    right = words.tolist() == [-(-y.ctypes.data // 64) * 64, x.ctypes.data + 8]
    return right and fits == [True, False, False, False]


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
    return _relocates()


#: Whether compiled code reads array objects.
BY_OBJECT = _has_layout()
