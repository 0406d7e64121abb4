"""Batch normalisation of rows of columns: sums of blocks of rows, their combination, and what is applied to each row.

A block sums ``t = x - shift`` and ``t^2`` of each column, where the shift is the mean of every eighth row: it differs
from the mean of all by at most the root of 8 standard deviations, so ``sum(t^2) - sum(t)^2 / m`` loses at most three
bits. The blocks are combined in order, in float64. A mean has two parts, ``near + correction``: if all values of a
channel are equal, the rounding error of a mean is divided by the root of ``eps``.

A row holds the channels of several cells, ``repeats``, so that vectors are long. All sums have a fixed order.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from typing import Any

import numba
import numpy as np

from .jobs import INT, NUMBER, job, read, write
from .lanes import Code, Lanes, vectorised

# Step between the rows whose mean is the shift; as many rows are added pairwise before they are added to the sums.
SAMPLE_STEP = 8
# Rows that are added pairwise in the sums of gradients, for which two arrays are read.
GRADIENT_STEP = 4
# Channels that an item combines.
COMBINED = 64
# Rows of the statistics of a batch, `Statistics.found`.
NEAR, CORRECTION, INVERSE_STD, MEAN, VAR = range(5)


def _tree(lanes: Lanes, values: list[Any]) -> Any:
    """The pairwise sum."""
    while len(values) > 1:
        values = [lanes.add(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


@vectorised
def _add_row(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any) -> None:
    """Add a row to sums."""
    for lanes, c in code.over_once(columns):
        place = code.add(to, c)
        lanes.store(lanes.add(lanes.load(sums, place), lanes.load(x, code.add(at, c))), sums, place)


def _add_moments(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any, rows: int) -> None:
    for lanes, c in code.over_once(columns):
        shift, places = lanes.load(sums, code.add(to, c)), [code.add(to, c, code.times(columns, k)) for k in (1, 2)]
        starts = [code.add(at, c, code.times(columns, r)) for r in range(rows)]
        t = [lanes.subtract(lanes.load(x, start), shift) for start in starts]
        for place, terms in zip(places, (t, [lanes.multiply(each, each) for each in t]), strict=True):
            lanes.store(lanes.add(lanes.load(sums, place), _tree(lanes, terms)), sums, place)


@vectorised
def _add_moments_of_rows(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any) -> None:
    """Add `SAMPLE_STEP` rows to sums of ``t`` and ``t^2``, which follow the shift."""
    _add_moments(code, x, at, columns, sums, to, SAMPLE_STEP)


@vectorised
def _add_moments_of_row(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any) -> None:
    """Add one row."""
    _add_moments(code, x, at, columns, sums, to, 1)


@job(read(2), write(3), INT)
def moments(item: Any, x: Any, partial: Any, per: Any) -> None:
    """Of block ``item``, ``per`` rows of ``x (R, K)``: shift, and sums of ``t`` and ``t^2``, to ``partial[item]``."""
    columns = x.shape[1]
    first, stop = item * per, min((item + 1) * per, x.shape[0])
    to = item * 3 * columns
    partial[item] = 0.0
    for r in range(first, stop, SAMPLE_STEP):
        _add_row(x, r * columns, columns, partial, to)
    sampled = x.dtype.type((stop - first + SAMPLE_STEP - 1) // SAMPLE_STEP)
    for c in range(columns):
        partial[item, 0, c] /= sampled
    whole = first + (stop - first) // SAMPLE_STEP * SAMPLE_STEP
    for r in range(first, whole, SAMPLE_STEP):
        _add_moments_of_rows(x, r * columns, columns, partial, to)
    for r in range(whole, stop):
        _add_moments_of_row(x, r * columns, columns, partial, to)


@numba.njit
def _set_scale(found: Any, weight: Any, bias: Any, apply: Any, c: Any) -> None:
    """``near``, scale and shift of ``y = (x - near) scale + shift`` for a channel, in each of its columns."""
    channels = found.shape[1]
    scale = found[INVERSE_STD, c]
    if weight.shape[0] > 0:
        scale *= weight[c]
    shift = -found[CORRECTION, c] * scale
    if bias.shape[0] > 0:
        shift = bias[c] - found[CORRECTION, c] * scale
    for column in range(c, apply.shape[1], channels):
        apply[0, column], apply[1, column], apply[2, column] = found[NEAR, c], scale, shift


@job(read(3), INT, INT, NUMBER, read(1), read(1), write(2), write(2))
def statistics(
    item: Any, partial: Any, per: Any, cells: Any, eps: Any, weight: Any, bias: Any, found: Any, apply: Any
) -> None:
    """Combine the blocks of ``per`` rows; ``found (5, C)`` and ``apply (3, K)``, see `_set_scale`."""
    number = partial.dtype.type
    blocks, columns, channels = partial.shape[0], partial.shape[2], found.shape[1]
    repeats = columns // channels
    rows = cells // repeats
    first = item * COMBINED
    size = min(COMBINED, channels - first)
    # Channels are in the innermost loops, so that these are vectors.
    near, correction, square = np.zeros(size), np.zeros(size), np.zeros(size)
    for b in range(blocks):
        for at in range(first, columns, channels):
            for c in range(size):
                near[c] += partial[b, 0, at + c]
    for c in range(size):
        found[NEAR, first + c] = number(near[c] / (blocks * repeats))
        near[c] = found[NEAR, first + c]
    for b in range(blocks):
        count = np.float64(min(per, rows - b * per))
        for at in range(first, columns, channels):
            for c in range(size):
                correction[c] += (partial[b, 0, at + c] - near[c]) * count + partial[b, 1, at + c]
    for c in range(size):
        correction[c] /= cells
    for b in range(blocks):
        count = np.float64(min(per, rows - b * per))
        share = 1.0 / count
        for at in range(first, columns, channels):
            for c in range(size):
                mean = partial[b, 1, at + c] * share
                within = partial[b, 2, at + c] - partial[b, 1, at + c] * mean
                # NaN stays.
                within = 0.0 if within < 0.0 else within
                between = partial[b, 0, at + c] - near[c] + mean - correction[c]
                square[c] += within + between * between * count
    for c in range(size):
        var, to = number(square[c] / cells), first + c
        found[CORRECTION, to], found[MEAN, to] = number(correction[c]), number(near[c] + correction[c])
        found[VAR, to] = var
        # A variance that overflowed: the inverse, 0, would make every output the bias.
        found[INVERSE_STD, to] = number(np.nan) if var == number(np.inf) else number(1) / np.sqrt(var + eps)
        _set_scale(found, weight, bias, apply, to)


@job(read(1), read(1), NUMBER, read(1), read(1), write(2), write(2))
def given_statistics(item: Any, mean: Any, var: Any, eps: Any, weight: Any, bias: Any, found: Any, apply: Any) -> None:
    """`statistics` from a mean and a variance."""
    number = found.dtype.type
    for c in range(found.shape[1]):
        found[NEAR, c], found[CORRECTION, c], found[MEAN, c], found[VAR, c] = mean[c], number(0), mean[c], var[c]
        found[INVERSE_STD, c] = number(1) / np.sqrt(var[c] + eps)
        _set_scale(found, weight, bias, apply, c)


def _output(lanes: Lanes, x: Any, apply: Any, columns: Any, c: Any) -> tuple[Any, Any]:
    """``x - near`` and ``y``."""
    code = lanes.code
    near, scale, shift = (lanes.load(apply, code.add(code.times(columns, k), c)) for k in range(3))
    t = lanes.subtract(x, near)
    return t, lanes.add(lanes.multiply(t, scale), shift)


@vectorised
def _normalise_rows(code: Code, x: Any, first: Any, stop: Any, columns: Any, apply: Any, y: Any, relu: Any) -> None:
    for is_rectified in code.either(relu):
        with code.each(first, stop) as row:
            for lanes, c in code.over(columns):
                at = code.add(code.times(row, columns), c)
                value = _output(lanes, lanes.load(x, at), apply, columns, c)[1]
                lanes.store(lanes.rectified(value) if is_rectified else value, y, at)


@job(read(2), read(2), write(2), INT, INT)
def normalise(item: Any, x: Any, apply: Any, y: Any, relu: Any, per: Any) -> None:
    """``(x - near) scale + shift`` of ``per`` rows, and ReLU of it with ``relu``."""
    _normalise_rows(x, item * per, min((item + 1) * per, x.shape[0]), x.shape[1], apply, y, relu)


def _gated(lanes: Lanes, dy: Any, x: Any, apply: Any, columns: Any, c: Any, relu: bool) -> tuple[Any, Any]:
    """``dy``, behind ReLU's gate, and ``x - near``."""
    if relu:
        t, y = _output(lanes, x, apply, columns, c)
        return lanes.gated(dy, y), t
    return dy, lanes.subtract(x, lanes.load(apply, c))


def _add_gradients(
    code: Code, dy: Any, x: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any, rows: int
) -> None:
    for is_rectified in code.either(relu):
        for lanes, c in code.over_once(columns):
            shares, products = [], []
            for r in range(rows):
                start = code.add(at, c, code.times(columns, r))
                d, t = _gated(lanes, lanes.load(dy, start), lanes.load(x, start), apply, columns, c, is_rectified)
                shares.append(d)
                products.append(lanes.multiply(d, t))
            for k, terms in enumerate((shares, products)):
                place = code.add(to, c, code.times(columns, k))
                lanes.store(lanes.add(lanes.load(sums, place), _tree(lanes, terms)), sums, place)


@vectorised
def _add_gradients_of_rows(
    code: Code, dy: Any, x: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any
) -> None:
    """Add `GRADIENT_STEP` rows to sums of ``dy`` and ``dy (x - near)``."""
    _add_gradients(code, dy, x, at, columns, apply, sums, to, relu, GRADIENT_STEP)


@vectorised
def _add_gradients_of_row(
    code: Code, dy: Any, x: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any
) -> None:
    """Add one row."""
    _add_gradients(code, dy, x, at, columns, apply, sums, to, relu, 1)


@job(read(2), read(2), read(2), write(3), INT, INT)
def gradient_sums(item: Any, dy: Any, x: Any, apply: Any, partial: Any, relu: Any, per: Any) -> None:
    """Of block ``item``: sums of ``dy`` and ``dy (x - near)`` to ``partial[item]``."""
    columns = x.shape[1]
    first, stop = item * per, min((item + 1) * per, x.shape[0])
    to = item * 2 * columns
    partial[item] = 0.0
    whole = first + (stop - first) // GRADIENT_STEP * GRADIENT_STEP
    for r in range(first, whole, GRADIENT_STEP):
        _add_gradients_of_rows(dy, x, r * columns, columns, apply, partial, to, relu)
    for r in range(whole, stop):
        _add_gradients_of_row(dy, x, r * columns, columns, apply, partial, to, relu)


@job(read(3), read(2), read(1), INT, INT, write(1), write(1), write(2))
def gradients(
    item: Any, partial: Any, found: Any, weight: Any, cells: Any, constant: Any, dweight: Any, dbias: Any, slopes: Any
) -> None:
    """``dweight``, ``dbias``, and slope, offset and scale of ``dx = (dy + (x - near) slope + offset) scale``."""
    number = partial.dtype.type
    channels, columns = found.shape[1], partial.shape[2]
    first = item * COMBINED
    size = min(COMBINED, channels - first)
    totals, products = np.zeros(size), np.zeros(size)
    for b in range(partial.shape[0]):
        for at in range(first, columns, channels):
            for c in range(size):
                totals[c] += partial[b, 0, at + c]
                products[c] += partial[b, 1, at + c]
    for i in range(size):
        c = first + i
        inverse, correction = found[INVERSE_STD, c], found[CORRECTION, c]
        dbias[c], dweight[c] = number(totals[i]), number((products[i] - correction * totals[i]) * inverse)
        slope, offset = number(0), number(0)
        if constant == 0:
            slope = -inverse * (dweight[c] / number(cells))
            offset = number(-totals[i] / cells) - correction * slope
        scale = inverse * weight[c] if weight.shape[0] > 0 else inverse
        for column in range(c, columns, channels):
            slopes[0, column], slopes[1, column], slopes[2, column] = slope, offset, scale


@vectorised
def _differentiate_rows(
    code: Code, dy: Any, x: Any, first: Any, stop: Any, columns: Any, apply: Any, slopes: Any, dx: Any, relu: Any
) -> None:
    for is_rectified in code.either(relu):
        with code.each(first, stop) as row:
            for lanes, c in code.over(columns):
                at = code.add(code.times(row, columns), c)
                d, t = _gated(lanes, lanes.load(dy, at), lanes.load(x, at), apply, columns, c, is_rectified)
                slope, offset, scale = (lanes.load(slopes, code.add(code.times(columns, k), c)) for k in range(3))
                centred = lanes.add(lanes.add(lanes.multiply(t, slope), offset), d)
                lanes.store(lanes.multiply(centred, scale), dx, at)


@job(read(2), read(2), read(2), read(2), write(2), INT, INT)
def differentiate(item: Any, dy: Any, x: Any, apply: Any, slopes: Any, dx: Any, relu: Any, per: Any) -> None:
    """``dx`` of ``per`` rows."""
    _differentiate_rows(dy, x, item * per, min((item + 1) * per, x.shape[0]), x.shape[1], apply, slopes, dx, relu)


@job(
    read(2), read(1), read(1), read(1, "int64"), write(1), write(1), write(1, "int64"), NUMBER, INT, NUMBER
)  # fmt: skip
def track(
    item: Any, found: Any, mean: Any, var: Any, batches: Any, new_mean: Any, new_var: Any, new_batches: Any,
    momentum: Any, is_average: Any, unbiased: Any,
) -> None:  # fmt: skip
    """Running statistics after a batch; ``unbiased`` is ``m / (m - 1)`` for ``m`` values of a channel."""
    number = found.dtype.type
    new_batches[0] = batches[0] + 1
    factor = number(1) / number(new_batches[0]) if is_average != 0 else momentum
    for c in range(found.shape[1]):
        new_mean[c] = mean[c] * (number(1) - factor) + found[MEAN, c] * factor
        new_var[c] = var[c] * (number(1) - factor) + found[VAR, c] * unbiased * factor
