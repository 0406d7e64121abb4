"""Largest magnitudes of rows and of columns of float64 numbers, from which exact numerics chooses scales.

Magnitudes are compared as the integers of their bits, which have the same order: infinity is above all numbers, and
NaN above infinity.
"""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .jobs import INT, job, read, write
from .pool import perform

_MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)
_INFINITY = np.int64(0x7FF0000000000000)
#: Kinds of rows: those that are left out, those of which finite numbers count, and those of which all do.
NONE, FINITE, ALL = 0, 1, 2
# Numbers that an item reads: some 20 microseconds.
ITEM_NUMBERS = 1 << 16


@job(read(2), write(1), write(1, "int64"), *[INT] * 3)
def _of_rows(item: Any, x: Any, largest: Any, bad: Any, finite: Any, used: Any, per: Any) -> None:
    """Of the first ``used`` numbers of each row; with ``finite``, only of finite ones, and whether there are others."""
    bits, found = x.view(np.int64), largest.view(np.int64)
    for r in range(item * per, min(len(x), (item + 1) * per)):
        row, most = bits[r, :used], np.int64(0)
        for k in range(len(row)):
            most = max(most, row[k] & _MAGNITUDE)
        bad[r] = 1 if most >= _INFINITY else 0
        if finite and most >= _INFINITY:
            most = np.int64(0)
            for k in range(len(row)):
                magnitude = row[k] & _MAGNITUDE
                most = max(most, magnitude if magnitude < _INFINITY else np.int64(0))
        found[r] = most


@job(read(2), read(1, "int64"), write(2), INT)
def _of_parts(item: Any, x: Any, kinds: Any, parts: Any, per: Any) -> None:
    """Of each column of some rows of ``x (R, K)``, whose kinds repeat."""
    bits, found = x.view(np.int64), parts.view(np.int64)[item]
    for k in range(len(found)):
        found[k] = 0
    for r in range(item * per, min(len(x), (item + 1) * per)):
        row, kind = bits[r], kinds[r % len(kinds)]
        if kind == ALL:
            for k in range(len(found)):
                found[k] = max(found[k], row[k] & _MAGNITUDE)
        elif kind == FINITE:
            for k in range(len(found)):
                magnitude = row[k] & _MAGNITUDE
                found[k] = max(found[k], magnitude if magnitude < _INFINITY else np.int64(0))


@job(read(2), write(1), INT)
def _of_all_parts(item: Any, parts: Any, largest: Any, inner: Any) -> None:
    """The maxima of all parts, and of ``inner`` neighbouring columns."""
    bits, found = parts.view(np.int64), largest.view(np.int64)
    for k in range(len(found)):
        most = np.int64(0)
        for i in range(len(parts)):
            for j in range(inner):
                most = max(most, bits[i, k * inner + j])
        found[k] = most


class Magnitudes:
    """Largest magnitudes of C-contiguous arrays that are not empty."""

    def __init__(self) -> None:
        self._all = np.array([ALL])

    def of_rows(self, x: Array, finite: bool = False, used: int | None = None) -> tuple[Array, Array]:
        """Of each row of ``x (R, K)``, and 1 for rows with a number that is not finite, else 0.

        With ``finite`` the others do not count. ``used`` is the numbers of a row that count, from the first on.
        """
        rows, columns = x.shape
        largest, bad = empty((rows,), "float64"), empty((rows,), "int64")
        per = max(1, ITEM_NUMBERS // columns)
        perform(_of_rows.bind(-(-rows // per), x, largest, bad, finite, columns if used is None else used, per))
        return largest, bad

    def of_columns(self, x: Array, inner: int = 1, kinds: Array | None = None) -> Array:
        """Of ``inner`` neighbouring columns each of ``x (R, K)``: ``(K / inner,)``.

        ``kinds`` are those of the first rows, and of as many following ones again and again.
        """
        rows, columns = x.shape
        per = max(1, ITEM_NUMBERS // columns)
        parts, largest = empty((-(-rows // per), columns), "float64"), empty((columns // inner,), "float64")
        found = _of_parts.bind(len(parts), x, self._all if kinds is None else kinds, parts, per)
        perform(found.join([found, _of_all_parts.bind(1, parts, largest, inner)]))
        return largest


def prepare(problem: None, dtype: str) -> Magnitudes | None:
    """For float64."""
    return Magnitudes() if dtype == "float64" else None
