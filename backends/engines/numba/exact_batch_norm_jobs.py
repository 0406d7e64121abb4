"""Batch normalisation in exact numerics: extremes, sums of whole numbers and results of rows, each in one pass.

The array functions are those of `xpnn.layers.normalisation.norm`, and each operation is rounded as theirs. The largest
magnitude of a difference follows from the extremes of its terms, because rounding keeps the order of numbers. A NaN is
in no extreme; it makes the sum of its channel NaN, and so all that follows.
"""

from typing import Any

import numpy as np

from .exact_lanes import ExactLanes, over
from .exact_numbers import combined, contraction_scale, down, root, total, up
from .exact_sums import COMBINED, LENGTHS, REAL, add_terms, in_groups
from .jobs import INT, job, read, write
from .lanes import Code, vectorised

#: Rows of what is applied to a row of ``x``: a channel's numbers in each of its columns.
NEAR, CORRECTION, INVERSE_STD, WEIGHT, BIAS, FACTOR = range(6)
#: Rows of the statistics of the channels.
MEAN, VAR, LOW, HIGH, SCALE = range(5)
#: Rows of what is applied to a row of ``dy``: factors of the two sums, their means, and the slope.
OF_DY, OF_PRODUCT, MEAN_DY, MEAN_PRODUCT, SLOPE = range(5)
TABLE_ROWS, FOUND_ROWS, SLOPE_ROWS = 6, 5, 5


def row_of(lanes: ExactLanes, table: Any, row: int, columns: Any, c: Any) -> Any:
    """Entries of a row of a table ``(rows, K)``."""
    code = lanes.code
    return lanes.load(table, code.add(code.times(columns, row), c))


def _centred(lanes: ExactLanes, x: Any, table: Any, columns: Any, at: Any, c: Any) -> Any:
    """``x - near - correction``."""
    t = lanes.subtract(lanes.read(x, at), row_of(lanes, table, NEAR, columns, c))
    return lanes.subtract(t, row_of(lanes, table, CORRECTION, columns, c))


def normalised(lanes: ExactLanes, x: Any, table: Any, columns: Any, at: Any, c: Any) -> Any:
    """The normalised ``x``."""
    return lanes.multiply(_centred(lanes, x, table, columns, at, c), row_of(lanes, table, INVERSE_STD, columns, c))


@vectorised
def _extremes(code: Code, x: Any, first: Any, stop: Any, columns: Any, partial: Any, to: Any) -> None:
    def body(at: Any, rows: int) -> None:
        for lanes, c in over(code, columns, LENGTHS):
            places = code.add(to, c), code.add(to, c, columns)
            low, high = (lanes.load(partial, place) for place in places)
            for r in range(rows):
                value = lanes.read(x, code.add(at, c, code.times(columns, r)))
                low, high = lanes.smaller(value, low), lanes.larger(value, high)
            lanes.store(low, partial, places[0])
            lanes.store(high, partial, places[1])

    in_groups(code, first, stop, columns, body)


def _summing(kind: str) -> Any:
    """The instruction that adds up slices of a term of ``x``."""

    @vectorised
    def add_up(
        code: Code, x: Any, table: Any, first: Any, stop: Any, columns: Any, partial: Any, to: Any, unit: Any, two: Any
    ) -> None:
        def terms(lanes: ExactLanes, at: Any, c: Any) -> list[Any]:
            if kind == "plain":
                return [lanes.read(x, at)]
            if kind == "centred":
                return [lanes.subtract(lanes.read(x, at), row_of(lanes, table, NEAR, columns, c))]
            t = _centred(lanes, x, table, columns, at, c)
            return [lanes.multiply(t, t)]

        def factors(lanes: ExactLanes, k: int, c: Any) -> Any:
            return row_of(lanes, table, FACTOR + k, columns, c)

        for has_two in code.either(two):

            def body(at: Any, rows: int, has_two: bool = has_two) -> None:
                add_terms(code, terms, factors, at, columns, partial, to, unit, has_two, rows)

            in_groups(code, first, stop, columns, body)

    return add_up


_add_plain, _add_centred, _add_squares = _summing("plain"), _summing("centred"), _summing("squares")


@vectorised
def _normalise(code: Code, x: Any, table: Any, first: Any, stop: Any, columns: Any, y: Any, relu: Any) -> None:
    for is_rectified in code.either(relu):
        with code.each(first, stop) as row:
            for lanes, c in over(code, columns, LENGTHS):
                at = code.add(code.times(row, columns), c)
                value = normalised(lanes, x, table, columns, at, c)
                value = lanes.multiply(value, row_of(lanes, table, WEIGHT, columns, c))
                value = lanes.add(value, row_of(lanes, table, BIAS, columns, c))
                lanes.write(lanes.rectified(value) if is_rectified else value, y, at)


#: Of all jobs of forward: rows of ``x`` and ``y``, the tables, sums of blocks, weight, bias, given mean and variance,
#: whether ReLU follows, rows of a block, number of terms, whether sums have two slices, units of a scale, and eps.
FORWARD = (
    read(2), write(2), write(2, "float64"), write(2, "float64"), write(3, "float64"), *[read(1, "float64")] * 4, INT,
    INT, INT, INT, REAL, REAL,
)  # fmt: skip


@job(*FORWARD, contract=False)
def extremes(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """The smallest and largest number of each column of a block."""
    rows, columns = x.shape
    for c in range(columns):
        partial[item, 0, c], partial[item, 1, c] = np.inf, -np.inf
    _extremes(x, item * per, min((item + 1) * per, rows), columns, partial, item * 2 * columns)


@job(*FORWARD, contract=False)
def begin(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """Combine the extremes: the scale of the numbers themselves."""
    channels = found.shape[1]
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    for c in range(first, stop):
        found[LOW, c], found[HIGH, c] = np.inf, -np.inf
    for b in range(partial.shape[0]):
        for at in range(0, partial.shape[2], channels):
            for c in range(first, stop):
                found[LOW, c] = min(found[LOW, c], partial[b, 0, at + c])
                found[HIGH, c] = max(found[HIGH, c], partial[b, 1, at + c])
    for c in range(first, stop):
        found[SCALE, c] = contraction_scale(max(abs(found[LOW, c]), abs(found[HIGH, c])))
        for at in range(c, table.shape[1], channels):
            table[FACTOR, at] = unit / found[SCALE, c]


@job(*FORWARD, contract=False)
def plain_sums(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """Sums of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    stop = min((item + 1) * per, rows)
    _add_plain(x, table, item * per, stop, columns, partial, item * 2 * columns, unit, two)


@job(*FORWARD, contract=False)
def centred_sums(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """Sums of ``x - near`` of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    stop = min((item + 1) * per, rows)
    _add_centred(x, table, item * per, stop, columns, partial, item * 2 * columns, unit, two)


@job(*FORWARD, contract=False)
def square_sums(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """Sums of ``(x - mean)^2`` of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    stop = min((item + 1) * per, rows)
    _add_squares(x, table, item * per, stop, columns, partial, item * 2 * columns, unit, two)


@job(*FORWARD, contract=False)
def set_near(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """The mean, nearly, and the scale of differences from it."""
    channels, number = found.shape[1], np.float64(terms)
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    quanta = combined(partial, 0, first, stop, channels)
    for c in range(first, stop):
        near = total(quanta[0, c - first], quanta[1, c - first], found[SCALE, c], unit) / number
        found[SCALE, c] = contraction_scale(max(abs(found[LOW, c] - near), abs(found[HIGH, c] - near)))
        for at in range(c, table.shape[1], channels):
            table[NEAR, at], table[FACTOR, at] = near, unit / found[SCALE, c]


@job(*FORWARD, contract=False)
def set_correction(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """The rest of the mean, and the scale of squares of differences."""
    channels, number = found.shape[1], np.float64(terms)
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    quanta = combined(partial, 0, first, stop, channels)
    for c in range(first, stop):
        near = table[NEAR, c]
        rest = total(quanta[0, c - first], quanta[1, c - first], found[SCALE, c], unit) / number
        largest = max(abs((found[LOW, c] - near) - rest), abs((found[HIGH, c] - near) - rest))
        found[MEAN, c], found[SCALE, c] = near + rest, contraction_scale(largest * largest)
        for at in range(c, table.shape[1], channels):
            table[CORRECTION, at], table[FACTOR, at] = rest, unit / found[SCALE, c]


@job(*FORWARD, contract=False)
def set_statistics(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """Variance, inverse standard deviation, weight and bias; mean and variance are those given, if there are any."""
    channels, number = found.shape[1], np.float64(terms)
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    is_given = mean.shape[0] > 0
    quanta = np.zeros((2, stop - first)) if is_given else combined(partial, 0, first, stop, channels)
    for c in range(first, stop):
        if is_given:
            found[MEAN, c], found[VAR, c] = mean[c], var[c]
        else:
            found[VAR, c] = total(quanta[0, c - first], quanta[1, c - first], found[SCALE, c], unit) / number
        std = 1.0 / root(found[VAR, c] + eps)
        if not is_given and found[VAR, c] == np.inf:
            std = np.nan
        # The sum of any number and -0 is that number.
        factor = weight[c] if weight.shape[0] > 0 else 1.0
        shift = bias[c] if bias.shape[0] > 0 else -0.0
        for at in range(c, table.shape[1], channels):
            if is_given:
                table[NEAR, at], table[CORRECTION, at] = mean[c], 0.0
            table[INVERSE_STD, at], table[WEIGHT, at], table[BIAS, at] = std, factor, shift


@job(*FORWARD, contract=False)
def normalise(
    item: Any, x: Any, y: Any, table: Any, found: Any, partial: Any, weight: Any, bias: Any, mean: Any, var: Any,
    relu: Any, per: Any, terms: Any, two: Any, unit: Any, eps: Any,
) -> None:  # fmt: skip
    """``(x - near - correction) inverse_std weight + bias`` of a block, and ReLU of it with ``relu``."""
    rows, columns = x.shape
    _normalise(x, table, item * per, min((item + 1) * per, rows), columns, y, relu)


_STORED, _STORED_RESULT = read(1, "float32"), write(1, "float32")


@job(
    read(2, "float64"), _STORED, _STORED, read(1, "int64"), _STORED_RESULT, _STORED_RESULT, write(1, "int64"), REAL,
    INT, REAL, contract=False,
)  # fmt: skip
def track(
    item: Any, found: Any, mean: Any, var: Any, batches: Any, new_mean: Any, new_var: Any, new_batches: Any,
    momentum: Any, is_average: Any, unbiased: Any,
) -> None:  # fmt: skip
    """Running statistics after a batch; ``unbiased`` is ``m / (m - 1)`` for ``m`` values of a channel."""
    new_batches[0] = batches[0] + 1
    factor = 1.0 / np.float64(new_batches[0]) if is_average != 0 else momentum
    for c in range(found.shape[1]):
        new_mean[c] = down(up(mean[c]) * (1.0 - factor) + found[MEAN, c] * factor)
        new_var[c] = down(up(var[c]) * (1.0 - factor) + (found[VAR, c] * unbiased) * factor)
