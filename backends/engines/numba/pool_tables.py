"""Which cells each window of a pool reads, and which windows contain each cell, as tables for compiled jobs.

All positions are cells of the spatial axes in row-major order, so that a table serves any number of channels.
"""

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ....common.types import Array
from ...contractions.windows import Windows
from .window_offsets import Axis, axis_classes, row_major_strides, sums_of_indices

# Entries of a table beyond which array functions compute: making it takes a second.
MOST_ENTRIES = 1 << 20


class Table(NamedTuple):
    """For each output, the inputs that it combines.

    Outputs that combine the same inputs, up to their position, are a class; a class is cut into parts. All are int64.

    Attributes
    ----------
    parts : array
        ``(P, 4)``: the first output and the one after the last, the first entry and the one after the last.
    outputs : array
        ``(O, 3)``: the position where entries are counted from, the output's own position, and a number that is added
        to the codes.
    entries : array
        ``(E, 2)``: the distance of an input, and its code.
    """

    parts: Array
    outputs: Array
    entries: Array


@lru_cache(maxsize=512)
def window_table(spatial: tuple[int, ...], windows: Windows, before: tuple[int, ...], most: int) -> Table | None:
    """The cells of each window; the code of a cell is its index in the window. A part has ``most`` windows at most.

    None if the table would be too long: with much padding, each window at the border is a class of its own.
    """
    shape = (*spatial, 1)
    axes = [axis_classes(shape, windows, before, False, axis) for axis in range(len(spatial))]
    return _table(axes, windows.count, row_major_strides(windows.kernel), "", most)


@lru_cache(maxsize=512)
def cell_table(spatial: tuple[int, ...], windows: Windows, before: tuple[int, ...], most: int) -> Table | None:
    """The windows that contain each cell of the input; the code is the index of the cell in the window."""
    seen = Windows(windows.kernel, windows.stride, windows.dilation, spatial)
    shape = (*windows.count, 1)
    axes = [axis_classes(shape, seen, before, True, axis) for axis in range(len(spatial))]
    return _table(axes, spatial, row_major_strides(windows.kernel), "", most)


@lru_cache(maxsize=512)
def bin_table(spatial: tuple[int, ...], sizes: tuple[int, ...], most: int) -> Table | None:
    """The cells of each bin; the code of a cell is its position. None if the table would be too long."""
    steps = row_major_strides(spatial)
    axes = [_axis_ranges(m, n, m, step) for n, m, step in zip(spatial, sizes, steps, strict=True)]
    return _table(axes, sizes, steps, "begin", most)


@lru_cache(maxsize=512)
def bins_of_cells(spatial: tuple[int, ...], sizes: tuple[int, ...], most: int) -> Table | None:
    """The bins that contain each cell; the number added to the codes, which are 0, is the position of the cell."""
    steps = row_major_strides(sizes)
    axes = [_axis_ranges(n, m, n, step) for n, m, step in zip(spatial, sizes, steps, strict=True)]
    return _table(axes, spatial, [0] * len(spatial), "output", most)


def _axis_ranges(count: int, n: int, m: int, step: int) -> list[Axis]:
    """Along an axis, for ``i < count`` the range from ``floor(i n / m)`` to ``ceil((i + 1) n / m)``, by its length."""
    i = np.arange(count, dtype=np.int64)
    start = i * n // m
    length = -(-(i + 1) * n // m) - start
    found = []
    for each in np.unique(length):
        members, inside = np.flatnonzero(length == each), np.arange(each, dtype=np.int64)
        found.append((members, inside, start[members] * step, inside * step))
    return found


def _table(axes: list[list[Axis]], outputs: tuple[int, ...], code: list[int], added: str, most: int) -> Table | None:
    """The table of all combinations of a class of each axis; None if it is too long.

    Outputs are row-major; a code is the sum of indices along the axes times ``code``.
    """
    if max(prod(outputs), prod(sum(len(inside) for _, inside, _, _ in classes) for classes in axes)) > MOST_ENTRIES:
        return None
    parts, positions, entries, first, entry = [], [], [], 0, 0
    ones = [1] * len(axes)
    to = row_major_strides(outputs)
    for classes in product(*axes):
        members, inside, starts, distances = zip(*classes, strict=True)
        begin, own = sums_of_indices(starts, ones), sums_of_indices(members, to)
        number = {"": np.zeros_like(own), "begin": begin, "output": own}[added]
        positions.append(np.stack([begin, own, number], axis=1))
        entries.append(np.stack([sums_of_indices(distances, ones), sums_of_indices(inside, code)], axis=1))
        after, entry_after = first + len(own), entry + len(entries[-1])
        parts += [(at, min(at + most, after), entry, entry_after) for at in range(first, after, most)]
        first, entry = after, entry_after
    # Parts that write next to each other follow each other, so that what they share is still in a cache.
    where = _rows(positions, 3)
    parts.sort(key=lambda part: int(where[part[0], 1]))
    return Table(_rows(parts, 4), where, _rows(entries, 2))


def _rows(rows: list[Any], columns: int) -> Array:
    empty = np.zeros((0, columns), np.int64)
    return np.concatenate([empty, *(np.asarray(each, np.int64).reshape(-1, columns) for each in rows)])
