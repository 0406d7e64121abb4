"""Sums over the rows of a matrix, such as the gradient of a bias: in lanes of rows, then over the lanes in order.

Short rows are joined to longer ones, so that vectors are filled. A lane adds blocks of rows, and the blocks' sums: the
rounding error grows with their numbers, not with that of all rows.
"""

from math import prod
from typing import Any

from ....common.types import Array
from ...recording.calls import empty
from .bound import Bound
from .compiler import contiguous
from .jobs import INT, bind_phases, job, read, write
from .pool import perform

# Entries of a row of joined rows, and of the part of a lane.
JOINED, LANE_ENTRIES = 128, 1 << 16
MOST_LANES = 64
BLOCK_ROWS = 64

_KINDS = (read(1), write(3), write(1), INT, INT, INT, INT)


@job(*_KINDS)
def sum_lane(item: Any, flat: Any, parts: Any, out: Any, rows: Any, columns: Any, joined: Any, length: Any) -> None:
    """The sum of ``length`` rows of joined rows."""
    width = columns * joined
    total, block = parts[item, 0], parts[item, 1]
    total[:] = 0
    first, end = item * length, min((item + 1) * length, rows // joined)
    for start in range(first, end, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, end)
        block[:] = 0
        whole = start + (stop - start) // 4 * 4
        for row in range(start, whole, 4):
            four = flat[row * width : (row + 4) * width].reshape(4, width)
            a, b, c, d = four[0], four[1], four[2], four[3]
            for i in range(width):
                block[i] += (a[i] + b[i]) + (c[i] + d[i])
        for row in range(whole, stop):
            a = flat[row * width : (row + 1) * width]
            for i in range(width):
                block[i] += a[i]
        for i in range(width):
            total[i] += block[i]


@job(*_KINDS)
def add_lanes(item: Any, flat: Any, parts: Any, out: Any, rows: Any, columns: Any, joined: Any, length: Any) -> None:
    """The sum of all lanes, of the rows within joined rows, and of the rows that are left."""
    total = parts[0, 0]
    for lane in range(1, parts.shape[0]):
        for i in range(columns * joined):
            total[i] += parts[lane, 0, i]
    for c in range(columns):
        out[c] = total[c]
    for j in range(1, joined):
        for c in range(columns):
            out[c] += total[j * columns + c]
    for row in range(rows // joined * joined, rows):
        for c in range(columns):
            out[c] += flat[row * columns + c]


@job(read(2), write(1))
def sum_rows_in_order(item: Any, x: Any, out: Any) -> None:
    """The sum of all rows, one after the other."""
    out[:] = 0
    for row in range(x.shape[0]):
        values = x[row]
        for c in range(x.shape[1]):
            out[c] += values[c]


class RowSumsInOrder:
    """Sum over the rows of a small matrix, with the bits of `numpy.sum`."""

    def __call__(self, x: Array) -> Array:
        """``x (R, C)``, C-contiguous, to ``(C,)``, for at least one row and two columns."""
        out = empty((x.shape[1],), x.dtype)
        perform(sum_rows_in_order.bind(1, x, out))
        return out


class RowSums:
    """Sum over all axes but the last."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """``x (*R, C)`` to ``(C,)``."""
        out = empty((x.shape[-1],), x.dtype)
        perform(self.bound(contiguous(x), out))
        return out

    def bound(self, x: Array, out: Array) -> Bound:
        """The program that writes the sums of a C-contiguous array to ``out (C,)``."""
        columns = x.shape[-1]
        rows = prod(x.shape[:-1])
        joined = max(1, min(JOINED // max(1, columns), rows))
        lanes = max(1, min(x.size // LANE_ENTRIES, MOST_LANES))
        length = -(-(rows // joined) // lanes)
        parts = empty((lanes, 2, joined * columns), x.dtype)
        phases = [(sum_lane, lanes), (add_lanes, 1)]
        return bind_phases(phases, x.reshape(-1), parts, out, rows, columns, joined, length, dtype=self.dtype)


def prepare(problem: str | None, dtype: str) -> RowSums | RowSumsInOrder | None:
    """Sums over rows of that dtype: of any, or of a small matrix if the problem is ``"in order"``."""
    if problem == "in order":
        return RowSumsInOrder() if dtype in ("float32", "float64") else None
    return RowSums(dtype)
