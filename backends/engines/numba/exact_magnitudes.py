"""Largest magnitudes of the numbers that windows read: from them, exact numerics chooses scales of an input.

Those of all numbers of an array are in `exact_rows`. Magnitudes are compared as the integers of their bits, which have
the same order: infinity is above all numbers, and NaN above infinity.
"""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .exact_numbers import INFINITY, MAGNITUDE
from .jobs import INT, job, read, write
from .pool import perform

#: Kinds of rows: those that are left out, those whose finite numbers count, and those whose numbers all do.
NONE, FINITE, ALL = 0, 1, 2
# Numbers that an item reads: some 20 microseconds.
ITEM_NUMBERS = 1 << 16


@job(read(2), write(1), write(1, "int64"), *[INT] * 2)
def _of_rows(item: Any, x: Any, largest: Any, bad: Any, used: Any, per: Any) -> None:
    """The largest finite magnitude in the first ``used`` numbers of each row, and whether others are not finite."""
    bits, found = x.view(np.int64), largest.view(np.int64)
    for r in range(item * per, min(len(x), (item + 1) * per)):
        row, most = bits[r, :used], np.int64(0)
        for k in range(len(row)):
            most = max(most, row[k] & MAGNITUDE)
        bad[r] = 1 if most >= INFINITY else 0
        if most >= INFINITY:
            most = np.int64(0)
            for k in range(len(row)):
                magnitude = row[k] & MAGNITUDE
                most = max(most, magnitude if magnitude < INFINITY else np.int64(0))
        found[r] = most


@job(read(2), read(1, "int64"), write(2), INT)
def _of_parts(item: Any, x: Any, kinds: Any, parts: Any, per: Any) -> None:
    """The largest magnitude in each column of ``per`` rows of ``x (R, K)``, for kinds of rows that repeat."""
    bits, found = x.view(np.int64), parts.view(np.int64)[item]
    for k in range(len(found)):
        found[k] = 0
    for r in range(item * per, min(len(x), (item + 1) * per)):
        row, kind = bits[r], kinds[r % len(kinds)]
        if kind == ALL:
            for k in range(len(found)):
                found[k] = max(found[k], row[k] & MAGNITUDE)
        elif kind == FINITE:
            for k in range(len(found)):
                magnitude = row[k] & MAGNITUDE
                found[k] = max(found[k], magnitude if magnitude < INFINITY else np.int64(0))


@job(read(2), write(1))
def _of_all_parts(item: Any, parts: Any, largest: Any) -> None:
    """The maxima of all parts."""
    bits, found = parts.view(np.int64), largest.view(np.int64)
    for k in range(len(found)):
        most = np.int64(0)
        for i in range(len(parts)):
            most = max(most, bits[i, k])
        found[k] = most


class Magnitudes:
    """Largest magnitudes of some numbers of C-contiguous arrays that are not empty."""

    def of_rows(self, x: Array, used: int) -> tuple[Array, Array]:
        """The largest finite magnitude in the first ``used`` numbers of each row of ``x (R, K)``, and 1 or 0.

        1 is for rows that also have NaN or infinities there.
        """
        rows, columns = x.shape
        largest, bad = empty((rows,), "float64"), empty((rows,), "int64")
        per = max(1, ITEM_NUMBERS // columns)
        perform(_of_rows.bind(-(-rows // per), x, largest, bad, used, per))
        return largest, bad

    def of_columns(self, x: Array, kinds: Array) -> Array:
        """The largest magnitude in each column of ``x (R, K)``; NaN if one is in a row of the kind `ALL`.

        ``kinds`` are those of the first rows, and repeat for the rows that follow.
        """
        rows, columns = x.shape
        per = max(1, ITEM_NUMBERS // columns)
        parts, largest = empty((-(-rows // per), columns), "float64"), empty((columns,), "float64")
        found = _of_parts.bind(len(parts), x, kinds, parts, per)
        perform(found.join([found, _of_all_parts.bind(1, parts, largest)]))
        return largest


def prepare(problem: None, dtype: str) -> Magnitudes | None:
    """For float64."""
    return Magnitudes() if dtype == "float64" else None
