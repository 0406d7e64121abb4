"""Where windows read in a strip, as places in its memory."""

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...contractions.windows import Windows

Places = np.ndarray[Any, np.dtype[np.int64]]


class Classes(NamedTuple):
    """Windows and the cells that they read within an input, those that read the same cells in one class.

    Of class ``i`` the windows are ``windows[split[i]:split[i + 1]]``, rows of the output, and begin at ``begin``; the
    cells are ``cells[parts[i]:parts[i + 1]]``, rows of the kernel, and lie ``within`` places after that.
    """

    begin: Places
    windows: Places
    split: Places
    within: Places
    cells: Places
    parts: Places


@lru_cache(maxsize=512)
def classes(
    shape: tuple[int, ...], windows: Windows, before: tuple[int, ...], adjoint: bool = False, most: int = 0
) -> Classes:
    """Where windows read in one sample ``(*S, C)``: window ``o`` begins at ``o * stride - before``.

    For the ``adjoint`` the sample is that of the windows, and ``count`` cells, of which the first is the cell
    ``before``, read the windows that read them. A class has at most so many windows, if ``most`` is given.
    """
    steps, axes = _rows(shape)[:-1], []
    for axis, n in enumerate(shape[:-1]):
        cell = np.arange(windows.kernel[axis], dtype=np.int64) * windows.dilation[axis]
        item = np.arange(windows.count[axis], dtype=np.int64)[:, None]
        if adjoint:
            at, rest = np.divmod(item + before[axis] - cell, windows.stride[axis])
        else:
            at = item * windows.stride[axis] - before[axis] + cell
            rest = np.zeros_like(at)
        inside = (at >= 0) & (at < n) & (rest == 0)
        alike, of = np.unique(inside, axis=0, return_inverse=True)
        parts = []
        for each, kind in enumerate(alike):
            where, which = np.flatnonzero(of.reshape(-1) == each), np.flatnonzero(kind)
            first = at[where, which[0]] if len(which) else np.zeros_like(where)
            apart = at[where[0], which] - first[0]
            parts.append((where, which, first * steps[axis], apart * steps[axis]))
        axes.append(parts)
    begin, outputs, within, cells = [], [], [], []
    ones = [1] * len(axes)
    for sides in product(*axes):
        outputs_at, cells_at, starts, offsets = zip(*sides, strict=True)
        start, rows = _sums(starts, ones), _sums(outputs_at, _rows(windows.count))
        size = most or len(rows)
        for some in range(0, len(rows), size):
            begin.append(start[some : some + size])
            outputs.append(rows[some : some + size])
            within.append(_sums(offsets, ones))
            cells.append(_sums(cells_at, _rows(windows.kernel)))
    return Classes(_joined(begin), _joined(outputs), _ends(begin), _joined(within), _joined(cells), _ends(within))


def _joined(parts: list[Places]) -> Places:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _ends(parts: list[Places]) -> Places:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _rows(sizes: tuple[int, ...]) -> list[int]:
    """How far apart entries along each axis are among all, in row-major order."""
    return [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _sums(indices: Any, steps: list[int]) -> Places:
    """All sums of one entry of each axis times its step, in row-major order."""
    total = np.zeros(1, np.int64)
    for index, step in zip(indices, steps, strict=True):
        total = (total[:, None] + index * step).reshape(-1)
    return total


@lru_cache(maxsize=64)
def places(shape: tuple[int, ...], windows: Windows) -> tuple[Places, Places]:
    """Of ``(n, *S, C)`` where each window begins, ``(n*O,)``, and how far after it each number it reads, ``(K*C,)``."""
    apart = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    begin = np.arange(shape[0], dtype=np.int64) * apart[0]
    for count, stride, step in zip(windows.count, windows.stride, apart[1:-1], strict=True):
        begin = (begin[:, None] + np.arange(count, dtype=np.int64) * stride * step).reshape(-1)
    within = np.zeros(1, np.int64)
    for size, dilation, step in zip(windows.kernel, windows.dilation, apart[1:-1], strict=True):
        within = (within[:, None] + np.arange(size, dtype=np.int64) * dilation * step).reshape(-1)
    return begin, (within[:, None] + np.arange(shape[-1], dtype=np.int64)).reshape(-1)
