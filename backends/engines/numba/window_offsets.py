"""Offsets of windows and their cells in the memory of an input."""

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...contractions.windows import Windows

Offsets = np.ndarray[Any, np.dtype[np.int64]]
#: A class of windows along one axis: their indices, those of the cells they read, and offsets of both.
Axis: TypeAlias = tuple[Offsets, Offsets, Offsets, Offsets]


class WindowClasses(NamedTuple):
    """Windows grouped in classes that read the same cells of the kernel within the input.

    The windows of class ``i`` are ``windows[split[i]:split[i + 1]]``, as rows of the output, with offsets
    ``begin[split[i]:split[i + 1]]`` in the input. Their cells are ``cells[parts[i]:parts[i + 1]]``, as rows of the
    kernel, with offsets ``within[parts[i]:parts[i + 1]]`` from the beginning of a window.
    """

    begin: Offsets
    windows: Offsets
    split: Offsets
    within: Offsets
    cells: Offsets
    parts: Offsets


@lru_cache(maxsize=512)
def window_classes(
    shape: tuple[int, ...], windows: Windows, before: tuple[int, ...], adjoint: bool = False, most: int = 0
) -> WindowClasses:
    """Classes of windows in one sample ``(*S, C)``: window ``o`` begins at ``o * stride - before``.

    For the ``adjoint``, the sample is that of the windows; each of ``count`` cells, beginning with cell ``before``,
    reads the windows that contain it. A class has at most ``most`` windows, unless that is 0.
    """
    axes = [axis_classes(shape, windows, before, adjoint, axis) for axis in range(len(shape) - 1)]
    begin, outputs, within, cells = [], [], [], []
    ones = [1] * len(axes)
    for classes in product(*axes):
        output_indices, cell_indices, starts, offsets = zip(*classes, strict=True)
        start, rows = sums_of_indices(starts, ones), sums_of_indices(output_indices, row_major_strides(windows.count))
        size = most or len(rows)
        for first in range(0, len(rows), size):
            begin.append(start[first : first + size])
            outputs.append(rows[first : first + size])
            within.append(sums_of_indices(offsets, ones))
            cells.append(sums_of_indices(cell_indices, row_major_strides(windows.kernel)))
    return WindowClasses(_joined(begin), _joined(outputs), _ends(begin), _joined(within), _joined(cells), _ends(within))


def axis_classes(
    shape: tuple[int, ...], windows: Windows, before: tuple[int, ...], adjoint: bool, axis: int
) -> list[Axis]:
    """The classes of one axis: indices of windows, of their cells, offsets of the windows, and of cells in a window."""
    stride = row_major_strides(shape)[axis]
    cell = np.arange(windows.kernel[axis], dtype=np.int64) * windows.dilation[axis]
    window = np.arange(windows.count[axis], dtype=np.int64)[:, None]
    if adjoint:
        position, remainder = np.divmod(window + before[axis] - cell, windows.stride[axis])
    else:
        position = window * windows.stride[axis] - before[axis] + cell
        remainder = np.zeros_like(position)
    inside = (position >= 0) & (position < shape[axis]) & (remainder == 0)
    patterns, pattern_of_window = np.unique(inside, axis=0, return_inverse=True)
    found = []
    for number, pattern in enumerate(patterns):
        members, cells = np.flatnonzero(pattern_of_window.reshape(-1) == number), np.flatnonzero(pattern)
        first = position[members, cells[0]] if len(cells) else np.zeros_like(members)
        distance = position[members[0], cells] - first[0]
        found.append((members, cells, first * stride, distance * stride))
    return found


def _joined(parts: list[Offsets]) -> Offsets:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _ends(parts: list[Offsets]) -> Offsets:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def row_major_strides(sizes: tuple[int, ...]) -> list[int]:
    """Strides in entries of an array of these sizes in row-major order."""
    return [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def sums_of_indices(indices: Any, strides: list[int]) -> Offsets:
    """All sums of one index of each axis times its stride, in row-major order."""
    total = np.zeros(1, np.int64)
    for index, stride in zip(indices, strides, strict=True):
        total = (total[:, None] + index * stride).reshape(-1)
    return total


@lru_cache(maxsize=64)
def window_offsets(shape: tuple[int, ...], windows: Windows) -> tuple[Offsets, Offsets]:
    """Offsets in ``(n, *S, C)`` of windows, ``(n*O,)``, and of numbers from the beginning of a window, ``(K*C,)``."""
    strides = row_major_strides(shape)
    begin = np.arange(shape[0], dtype=np.int64) * strides[0]
    for count, stride, step in zip(windows.count, windows.stride, strides[1:-1], strict=True):
        begin = (begin[:, None] + np.arange(count, dtype=np.int64) * stride * step).reshape(-1)
    within = np.zeros(1, np.int64)
    for size, dilation, step in zip(windows.kernel, windows.dilation, strides[1:-1], strict=True):
        within = (within[:, None] + np.arange(size, dtype=np.int64) * dilation * step).reshape(-1)
    return begin, (within[:, None] + np.arange(shape[-1], dtype=np.int64)).reshape(-1)
