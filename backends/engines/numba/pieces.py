"""Many arrays cut into pieces for the threads: a large array has many, and small ones share an item."""

from functools import lru_cache

import numpy as np

from ....common.types import Array

# Entries of an item, some 10 microseconds.
ITEM_ENTRIES = 1 << 15


@lru_cache(maxsize=256)
def cut(sizes: tuple[int, ...]) -> tuple[Array, Array]:
    """Pieces ``(row, first entry, size)`` of arrays of these sizes, and the number of the first piece of each item."""
    pieces: list[tuple[int, int, int]] = []
    firsts, filled = [0], 0
    for row, size in enumerate(sizes):
        for start in range(0, size, ITEM_ENTRIES):
            count = min(size - start, ITEM_ENTRIES)
            if filled and filled + count > ITEM_ENTRIES:
                firsts.append(len(pieces))
                filled = 0
            pieces.append((row, start, count))
            filled += count
    return np.array(pieces, np.int64).reshape(-1, 3), np.array([*firsts, len(pieces)], np.int64)


def has_no_gaps(x: Array) -> bool:
    """Whether an array fills its memory, in any order of its axes."""
    return _fills_memory(x.shape, x.strides, x.itemsize)


@lru_cache(maxsize=1024)
def _fills_memory(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    for step, n in sorted(zip(strides, shape, strict=True)):
        if n > 1 and step != itemsize:
            return False
        itemsize *= n
    return True


def steps(x: Array) -> tuple[int, ...]:
    """Strides of the axes longer than 1."""
    return tuple([step for step, n in zip(x.strides, x.shape, strict=True) if n > 1])
