"""Sums and largest magnitudes of rows in exact numerics, in one pass over memory for each.

A sum adds whole numbers: its terms times ``unit / scale``, rounded, and for more than 2**16 terms ``unit`` times what
is left, rounded (`xpnn.backends.exact.contractions.ExactContractions.sum`). No partial sum exceeds 2**53, so the order
of additions and the blocks have no effect, and neither have those of a maximum.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .exact_lanes import ExactLanes, over
from .exact_numbers import combined, contraction_scale, total
from .jobs import INT, Kind, job, read, write
from .lanes import Code, vectorised

#: A float64 number, in a job of any dtype.
REAL = Kind(None, "float64")
# Longest row: short ones are joined, and sums of rows stay in the L1 cache. Entries of a block of rows.
ROW_LENGTH, BLOCK_ENTRIES = 256, 1 << 15
# Rows that are added up in registers.
GROUP = 8
# Entries of a vector.
LENGTHS = (8, 1)
# Channels whose sums an item combines.
COMBINED = 64
# Terms up to which a sum has one slice, as `xpnn.backends.exact.contractions.ONE_SLICE_LENGTH` says.
ONE_SLICE_TERMS = 1 << 16


class Rows:
    """Rows ``(R, C)`` as fewer, longer rows ``(R / k, k C)`` in blocks."""

    def __init__(self, cells: int, channels: int) -> None:
        most = max(1, ROW_LENGTH // channels)
        repeats = next(k for k in range(min(cells, most), 0, -1) if cells % k == 0)
        self.channels, self.cells = channels, cells
        self.shape = cells // repeats, repeats * channels
        self.per = -(-max(1, BLOCK_ENTRIES // self.shape[1]) // GROUP) * GROUP
        self.blocks = -(-self.shape[0] // self.per)
        self.chunks = -(-channels // COMBINED)
        #: How many units of a slice make up a scale.
        self.unit = 2.0 ** (53 - max(cells - 1, 0).bit_length())


#: Terms of vectors at an index and a column, one of each sum; and what the terms of a sum are multiplied by.
Terms = Callable[[ExactLanes, Any, Any], list[Any]]
Factors = Callable[[ExactLanes, int, Any], Any]


def add_terms(
    code: Code, terms: Terms, factors: Factors, at: Any, columns: Any, partial: Any, to: Any, unit: Any, two: bool,
    rows: int,
) -> None:  # fmt: skip
    """Add the slices of the terms of some rows from index ``at`` to ``partial``, from index ``to``."""
    for lanes, c in over(code, columns, LENGTHS):
        of_rows = [terms(lanes, code.add(at, c, code.times(columns, r)), c) for r in range(rows)]
        for k, values in enumerate(zip(*of_rows, strict=True)):
            factor = factors(lanes, k, c)
            slices: list[list[Any]] = [[], []]
            for value in values:
                scaled = lanes.multiply(value, factor)
                slices[0].append(lanes.rounded(scaled))
                if two:
                    rest = lanes.multiply(lanes.subtract(scaled, slices[0][-1]), lanes.spread(unit))
                    slices[1].append(lanes.rounded(rest))
            for level in range(1 + two):
                place = code.add(to, c, code.times(columns, 2 * k + level))
                lanes.store(_sum([*slices[level], lanes.load(partial, place)], lanes), partial, place)


def _sum(values: list[Any], lanes: ExactLanes) -> Any:
    """The sum of whole numbers, in any order."""
    while len(values) > 1:
        pairs = [lanes.add(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) // 2 * 2 :]
    return values[0]


def in_groups(code: Code, first: Any, stop: Any, columns: Any, body: Callable[[Any, int], None]) -> None:
    """``body(index, rows)`` for groups of rows from ``first`` to ``stop``, and for single ones at the end."""
    builder = code.builder
    groups = builder.sdiv(builder.sub(stop, first), code.word(GROUP))
    with code.each(0, groups) as i:
        body(code.times(code.add(first, code.times(i, GROUP)), columns), GROUP)
    with code.each(code.add(first, code.times(groups, GROUP)), stop) as row:
        body(code.times(row, columns), 1)


@vectorised
def _add_rows(
    code: Code, x: Any, first: Any, stop: Any, columns: Any, factors: Any, partial: Any, to: Any, unit: Any, two: Any
) -> None:
    for has_two in code.either(two):

        def body(at: Any, rows: int, has_two: bool = has_two) -> None:
            def terms(lanes: ExactLanes, place: Any, c: Any) -> list[Any]:
                return [lanes.read(x, place)]

            def scale(lanes: ExactLanes, k: int, c: Any) -> Any:
                return lanes.load(factors, c)

            add_terms(code, terms, scale, at, columns, partial, to, unit, has_two, rows)

        in_groups(code, first, stop, columns, body)


@vectorised
def _magnitudes(code: Code, x: Any, first: Any, stop: Any, columns: Any, partial: Any, to: Any) -> None:
    def body(at: Any, rows: int) -> None:
        for lanes, c in over(code, columns, LENGTHS):
            place = code.add(to, c)
            largest = lanes.load(partial, place)
            for r in range(rows):
                bits = lanes.magnitude_bits(lanes.read(x, code.add(at, c, code.times(columns, r))))
                largest = lanes.larger_word(bits, largest)
            lanes.store(largest, partial, place)

    in_groups(code, first, stop, columns, body)


_KINDS = (
    read(2), write(2, "int64"), write(3, "float64"), write(2, "float64"), write(1, "float64"), INT, INT, REAL,
)  # fmt: skip


@job(*_KINDS, contract=False)
def magnitudes(
    item: Any, x: Any, words: Any, partial: Any, factors: Any, out: Any, per: Any, two: Any, unit: Any
) -> None:
    """The bits of the largest magnitude in each column of a block."""
    rows, columns = x.shape
    words[item] = 0
    _magnitudes(x, item * per, min((item + 1) * per, rows), columns, words, item * columns)


@job(*_KINDS, contract=False)
def largest(item: Any, x: Any, words: Any, partial: Any, factors: Any, out: Any, per: Any, two: Any, unit: Any) -> None:
    """The largest magnitude of each channel."""
    channels, found = out.shape[0], out.view(np.int64)
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    for c in range(first, stop):
        found[c] = 0
    for b in range(words.shape[0]):
        for at in range(0, words.shape[1], channels):
            for c in range(first, stop):
                found[c] = max(found[c], words[b, at + c])


@job(*_KINDS, contract=False)
def set_factors(
    item: Any, x: Any, words: Any, partial: Any, factors: Any, out: Any, per: Any, two: Any, unit: Any
) -> None:
    """What the terms of each column are multiplied by; the scales replace the largest magnitudes."""
    channels = out.shape[0]
    for c in range(item * COMBINED, min((item + 1) * COMBINED, channels)):
        out[c] = contraction_scale(out[c])
        for at in range(c, factors.shape[1], channels):
            factors[0, at] = unit / out[c]


@job(*_KINDS, contract=False)
def sums(item: Any, x: Any, words: Any, partial: Any, factors: Any, out: Any, per: Any, two: Any, unit: Any) -> None:
    """Sums of slices of the columns of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    stop = min((item + 1) * per, rows)
    _add_rows(x, item * per, stop, columns, factors, partial, item * 2 * columns, unit, two)


@job(*_KINDS, contract=False)
def finish(item: Any, x: Any, words: Any, partial: Any, factors: Any, out: Any, per: Any, two: Any, unit: Any) -> None:
    """The sum of each channel in place of its scale."""
    channels = out.shape[0]
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    quanta = combined(partial, 0, first, stop, channels)
    for c in range(first, stop):
        out[c] = total(quanta[0, c - first], quanta[1, c - first], out[c], unit)
