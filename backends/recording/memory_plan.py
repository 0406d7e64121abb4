"""Where each array of a recording begins in one piece of memory: arrays that are never in use together share bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...common.types import Array

#: Alignment in bytes: a cache line, and the widest vector.
ALIGNMENT = 64


@dataclass
class Lifetime:
    """Size in bytes of an array, and when it is in use: from ``start`` to before ``end``, None for ever.

    ``group`` and ``lane`` number the items that run in parallel within which it was made, or are -1.
    """

    size: int
    start: int
    end: int | None
    group: int = -1
    lane: int = -1


def plan(lifetimes: list[Lifetime]) -> tuple[list[int], int]:
    """An offset for each array, and the size of the memory.

    The largest array is placed first, each in the smallest gap that it fits into between those that are in use at the
    same time. Arrays of two lanes of one group are always in use at the same time.
    """
    n = len(lifetimes)
    sizes = np.array([-(-max(each.size, 1) // ALIGNMENT) * ALIGNMENT for each in lifetimes], np.int64)
    starts = np.array([each.start for each in lifetimes], np.int64)
    last = np.iinfo(np.int64).max
    ends = np.array([last if each.end is None else each.end for each in lifetimes], np.int64)
    groups, lanes = (np.array([getattr(each, name) for each in lifetimes], np.int64) for name in ("group", "lane"))
    offsets = np.zeros(n, np.int64)
    order = np.lexsort((starts, -sizes))
    # What was placed, in the order of placing.
    placed = np.empty((6, n), np.int64)
    for count, i in enumerate(order):
        start, end, group, lane, begin, stop = placed[:, :count]
        together = (start < ends[i]) & (end > starts[i])
        if groups[i] >= 0:
            together |= (group == groups[i]) & (lane != lanes[i])
        offsets[i] = _gap(begin[together], stop[together], int(sizes[i]))
        placed[:, count] = starts[i], ends[i], groups[i], lanes[i], offsets[i], offsets[i] + sizes[i]
    return offsets.tolist(), int((offsets + sizes).max(initial=0))


def _gap(
    begins: np.ndarray[tuple[int], np.dtype[np.int64]], stops: np.ndarray[tuple[int], np.dtype[np.int64]], size: int
) -> int:
    """The beginning of the smallest gap of at least ``size`` between these parts, or the end of the last."""
    if not len(begins):
        return 0
    order = np.argsort(begins, kind="stable")
    begins, reached = begins[order], np.maximum.accumulate(stops[order])
    before = np.concatenate([np.zeros(1, np.int64), reached[:-1]])
    room = begins - before
    fits = np.flatnonzero(room >= size)
    return int(before[fits[np.argmin(room[fits])]]) if len(fits) else int(reached[-1])


def aligned(size: int) -> Array:
    """``size`` bytes of memory that begin at a multiple of `ALIGNMENT`."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]
