"""The gradient of batch normalisation in exact numerics: see `exact_batch_norm_jobs`."""

from typing import Any

import numpy as np

from .exact_batch_norm_jobs import (
    INVERSE_STD,
    MEAN_DY,
    MEAN_PRODUCT,
    OF_DY,
    OF_PRODUCT,
    SLOPE,
    normalised,
    row_of,
)
from .exact_lanes import ExactLanes, over
from .exact_numbers import combined, contraction_scale, total
from .exact_sums import COMBINED, LENGTHS, REAL, add_terms, in_groups
from .jobs import INT, job, read, write
from .lanes import Code, vectorised


@vectorised
def _magnitudes(
    code: Code, dy: Any, x: Any, table: Any, first: Any, stop: Any, columns: Any, partial: Any, to: Any
) -> None:
    def body(at: Any, rows: int) -> None:
        for lanes, c in over(code, columns, LENGTHS):
            places = [code.add(to, c, code.times(columns, k)) for k in range(2)]
            largest = [lanes.load(partial, place) for place in places]
            for r in range(rows):
                here = code.add(at, c, code.times(columns, r))
                d = lanes.read(dy, here)
                product = lanes.multiply(d, normalised(lanes, x, table, columns, here, c))
                for k, value in enumerate((d, product)):
                    largest[k] = lanes.larger(lanes.magnitude(value), largest[k])
            for value, place in zip(largest, places, strict=True):
                lanes.store(value, partial, place)

    in_groups(code, first, stop, columns, body)


@vectorised
def _add_up(
    code: Code, dy: Any, x: Any, table: Any, slopes: Any, first: Any, stop: Any, columns: Any, partial: Any, to: Any,
    unit: Any, two: Any,
) -> None:  # fmt: skip
    def terms(lanes: ExactLanes, at: Any, c: Any) -> list[Any]:
        d = lanes.read(dy, at)
        return [d, lanes.multiply(d, normalised(lanes, x, table, columns, at, c))]

    def factors(lanes: ExactLanes, k: int, c: Any) -> Any:
        return row_of(lanes, slopes, (OF_DY, OF_PRODUCT)[k], columns, c)

    for has_two in code.either(two):

        def body(at: Any, rows: int, has_two: bool = has_two) -> None:
            add_terms(code, terms, factors, at, columns, partial, to, unit, has_two, rows)

        in_groups(code, first, stop, columns, body)


@vectorised
def _differentiate(
    code: Code, dy: Any, x: Any, table: Any, slopes: Any, first: Any, stop: Any, columns: Any, dx: Any, constant: Any
) -> None:
    for is_constant in code.either(constant):
        with code.each(first, stop) as row:
            for lanes, c in over(code, columns, LENGTHS):
                at = code.add(code.times(row, columns), c)
                mean, mean_product, slope = (
                    row_of(lanes, slopes, k, columns, c) for k in (MEAN_DY, MEAN_PRODUCT, SLOPE)
                )
                value = lanes.read(dy, at)
                if not is_constant:
                    shared = lanes.multiply(normalised(lanes, x, table, columns, at, c), mean_product)
                    value = lanes.subtract(lanes.subtract(value, mean), shared)
                lanes.write(lanes.multiply(value, slope), dx, at)


#: Of all jobs: rows of ``dy``, ``x`` and ``dx``, forward's table, slopes, sums of blocks, weight, sums of channels,
#: whether the statistics were given, rows of a block, number of terms, whether sums have two slices, units of a scale.
BACKWARD = (
    read(2), read(2), write(2), read(2, "float64"), write(2, "float64"), write(3, "float64"), read(1, "float64"),
    write(2, "float64"), INT, INT, INT, INT, REAL,
)  # fmt: skip


@job(*BACKWARD, contract=False)
def gradient_magnitudes(
    item: Any, dy: Any, x: Any, dx: Any, table: Any, slopes: Any, partial: Any, weight: Any, totals: Any,
    constant: Any, per: Any, terms: Any, two: Any, unit: Any,
) -> None:  # fmt: skip
    """Largest magnitudes of ``dy`` and of ``dy xhat`` in the columns of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    _magnitudes(dy, x, table, item * per, min((item + 1) * per, rows), columns, partial, item * 4 * columns)


@job(*BACKWARD, contract=False)
def set_scales(
    item: Any, dy: Any, x: Any, dx: Any, table: Any, slopes: Any, partial: Any, weight: Any, totals: Any,
    constant: Any, per: Any, terms: Any, two: Any, unit: Any,
) -> None:  # fmt: skip
    """The scales of both sums, in the place of the sums."""
    channels = totals.shape[1]
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    for k in range(2):
        for c in range(first, stop):
            totals[k, c] = 0.0
        for b in range(partial.shape[0]):
            for at in range(0, partial.shape[2], channels):
                for c in range(first, stop):
                    totals[k, c] = max(totals[k, c], partial[b, k, at + c])
        for c in range(first, stop):
            totals[k, c] = contraction_scale(totals[k, c])
            for at in range(c, slopes.shape[1], channels):
                slopes[k, at] = unit / totals[k, c]


@job(*BACKWARD, contract=False)
def gradient_sums(
    item: Any, dy: Any, x: Any, dx: Any, table: Any, slopes: Any, partial: Any, weight: Any, totals: Any,
    constant: Any, per: Any, terms: Any, two: Any, unit: Any,
) -> None:  # fmt: skip
    """Sums of ``dy`` and of ``dy xhat`` of a block."""
    rows, columns = x.shape
    partial[item] = 0.0
    stop = min((item + 1) * per, rows)
    _add_up(dy, x, table, slopes, item * per, stop, columns, partial, item * 4 * columns, unit, two)


@job(*BACKWARD, contract=False)
def set_slopes(
    item: Any, dy: Any, x: Any, dx: Any, table: Any, slopes: Any, partial: Any, weight: Any, totals: Any,
    constant: Any, per: Any, terms: Any, two: Any, unit: Any,
) -> None:  # fmt: skip
    """Both sums of each channel, their means, and the slope."""
    channels, number = totals.shape[1], np.float64(terms)
    first, stop = item * COMBINED, min((item + 1) * COMBINED, channels)
    for k in range(2):
        quanta = combined(partial, 2 * k, first, stop, channels)
        for c in range(first, stop):
            totals[k, c] = total(quanta[0, c - first], quanta[1, c - first], totals[k, c], unit)
            for at in range(c, slopes.shape[1], channels):
                slopes[MEAN_DY + k, at] = totals[k, c] / number
    for c in range(first, stop):
        slope = table[INVERSE_STD, c] * weight[c] if weight.shape[0] > 0 else table[INVERSE_STD, c]
        for at in range(c, slopes.shape[1], channels):
            slopes[SLOPE, at] = slope


@job(*BACKWARD, contract=False)
def differentiate(
    item: Any, dy: Any, x: Any, dx: Any, table: Any, slopes: Any, partial: Any, weight: Any, totals: Any,
    constant: Any, per: Any, terms: Any, two: Any, unit: Any,
) -> None:  # fmt: skip
    """``(dy - mean(dy) - xhat mean(dy xhat)) slope`` of a block; with ``constant`` ``dy slope``."""
    rows, columns = x.shape
    _differentiate(dy, x, table, slopes, item * per, min((item + 1) * per, rows), columns, dx, constant)
