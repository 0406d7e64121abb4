"""Normalisation of channels: sums of blocks of rows, their combination, and what is applied to each row.

In batch normalisation all samples count as one, and a channel is a group of its own; see `sample_of`.

A block sums ``t = x - shift`` and ``t^2`` of each column, where the shift is the mean of every eighth row: it differs
from the mean of all by at most the root of 8 standard deviations, so ``sum(t^2) - sum(t)^2 / m`` loses at most three
bits. The blocks are combined in order, in float64. A mean has two parts, ``near + correction``: if all values of a
channel are equal, the rounding error of a mean is divided by the root of ``eps``.

A row holds the channels of several cells, ``repeats``, so that vectors are long. All sums have a fixed order.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from typing import Any

import numpy as np

from .compiler import njit
from .jobs import INT, NUMBER, job, read, write
from .lanes import Code, Lanes, vectorised

# Step between the rows whose mean is the shift; as many rows are added pairwise before they are added to the sums.
SAMPLE_STEP = 8
# Rows of the statistics of a sample, `Statistics.found`.
NEAR, CORRECTION, INVERSE_STD, MEAN, VAR = range(5)


def pairwise_sum(lanes: Lanes, values: list[Any]) -> Any:
    """The pairwise sum."""
    while len(values) > 1:
        values = [lanes.add(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


@njit()
def sample_of(item: Any, blocks: Any, rows: Any, per: Any) -> tuple[Any, Any, Any]:
    """The sample of ``rows`` rows, the first row and the one after the last, of an item: a block of ``per`` rows."""
    sample, block = item // blocks, item % blocks
    return sample, sample * rows + block * per, sample * rows + min((block + 1) * per, rows)


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
            lanes.store(lanes.add(lanes.load(sums, place), pairwise_sum(lanes, terms)), sums, place)


@vectorised
def _add_moments_of_rows(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any) -> None:
    """Add `SAMPLE_STEP` rows to sums of ``t`` and ``t^2``, which follow the shift."""
    _add_moments(code, x, at, columns, sums, to, SAMPLE_STEP)


@vectorised
def _add_moments_of_row(code: Code, x: Any, at: Any, columns: Any, sums: Any, to: Any) -> None:
    """Add one row."""
    _add_moments(code, x, at, columns, sums, to, 1)


@job(read(2), write(3), INT, INT, INT)
def moments(item: Any, x: Any, partial: Any, blocks: Any, rows: Any, per: Any) -> None:
    """Of a block of ``x (N R, K)``: shift, and sums of ``t`` and ``t^2``, to ``partial[item]``."""
    columns = x.shape[1]
    _, first, stop = sample_of(item, blocks, rows, per)
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


@njit()
def _set_scale(found: Any, weight: Any, bias: Any, apply: Any, n: Any, c: Any) -> None:
    """``near``, scale and shift of ``y = (x - near) scale + shift`` for a channel, in each of its columns."""
    scale = found[n, INVERSE_STD, c]
    if weight.shape[0] > 0:
        scale *= weight[c]
    shift = -found[n, CORRECTION, c] * scale
    if bias.shape[0] > 0:
        shift = bias[c] - found[n, CORRECTION, c] * scale
    for column in range(c, apply.shape[2], found.shape[2]):
        apply[n, 0, column], apply[n, 1, column], apply[n, 2, column] = found[n, NEAR, c], scale, shift


@njit()
def _merge(means: Any, variances: Any, width: Any) -> None:
    """The mean and variance of each group of ``width`` channels in place of those of its channels."""
    for first in range(0, means.shape[0], width):
        mean, var = 0.0, 0.0
        for c in range(first, first + width):
            mean += means[c]
        mean /= width
        for c in range(first, first + width):
            between = means[c] - mean
            var += variances[c] + between * between
        for c in range(first, first + width):
            means[c], variances[c] = mean, var / width


@job(read(3), INT, INT, INT, INT, NUMBER, read(1), read(1), write(3), write(3))
def statistics(
    item: Any, partial: Any, per: Any, cells: Any, width: Any, chunk: Any, eps: Any, weight: Any, bias: Any,
    found: Any, apply: Any,
) -> None:  # fmt: skip
    """Combine the blocks of ``per`` rows; ``found (N, 5, C)`` and ``apply (N, 3, K)``, see `_set_scale`.

    An item combines ``chunk`` channels of a sample with ``cells`` values each; ``width`` channels are a group.
    """
    number = partial.dtype.type
    samples, columns, channels = found.shape[0], partial.shape[2], found.shape[2]
    blocks, repeats = partial.shape[0] // samples, columns // channels
    rows = cells // repeats
    chunks = (channels + chunk - 1) // chunk
    n, first = item // chunks, item % chunks * chunk
    size, begin = min(chunk, channels - first), n * blocks
    # Channels are in the innermost loops, so that these are vectors.
    near, mean, square = np.zeros(size), np.zeros(size), np.zeros(size)
    for b in range(begin, begin + blocks):
        for at in range(first, columns, channels):
            for c in range(size):
                near[c] += partial[b, 0, at + c]
    for c in range(size):
        near[c] /= blocks * repeats
    for b in range(blocks):
        count = np.float64(min(per, rows - b * per))
        for at in range(first, columns, channels):
            for c in range(size):
                mean[c] += (partial[begin + b, 0, at + c] - near[c]) * count + partial[begin + b, 1, at + c]
    for c in range(size):
        mean[c] /= cells
    for b in range(blocks):
        count = np.float64(min(per, rows - b * per))
        share = 1.0 / count
        for at in range(first, columns, channels):
            for c in range(size):
                part = partial[begin + b, 1, at + c] * share
                within = partial[begin + b, 2, at + c] - partial[begin + b, 1, at + c] * part
                # NaN stays.
                within = 0.0 if within < 0.0 else within
                between = partial[begin + b, 0, at + c] - near[c] + part - mean[c]
                square[c] += within + between * between * count
    for c in range(size):
        mean[c] += near[c]
        square[c] /= cells
    if width > 1:
        _merge(mean, square, width)
    for c in range(size):
        var, to = number(square[c]), first + c
        found[n, NEAR, to] = number(mean[c])
        found[n, CORRECTION, to] = number(mean[c] - found[n, NEAR, to])
        found[n, MEAN, to], found[n, VAR, to] = found[n, NEAR, to], var
        # A variance that overflowed: the inverse, 0, would make every output the bias.
        found[n, INVERSE_STD, to] = number(np.nan) if var == number(np.inf) else number(1) / np.sqrt(var + eps)
        _set_scale(found, weight, bias, apply, n, to)


@job(read(1), read(1), NUMBER, read(1), read(1), write(3), write(3))
def given_statistics(item: Any, mean: Any, var: Any, eps: Any, weight: Any, bias: Any, found: Any, apply: Any) -> None:
    """`statistics` of one sample from a mean and a variance."""
    number = found.dtype.type
    for c in range(found.shape[2]):
        found[0, NEAR, c], found[0, CORRECTION, c], found[0, MEAN, c] = mean[c], number(0), mean[c]
        found[0, VAR, c], found[0, INVERSE_STD, c] = var[c], number(1) / np.sqrt(var[c] + eps)
        _set_scale(found, weight, bias, apply, 0, c)


def rows_of_three(lanes: Lanes, array: Any, n: Any, columns: Any, c: Any) -> Any:
    """Entries ``[n, k, c]`` of an array ``(N, 3, K)`` for each ``k``."""
    code = lanes.code
    return (lanes.load(array, code.add(code.times(columns, code.add(code.times(n, 3), k)), c)) for k in range(3))


def output(lanes: Lanes, x: Any, apply: Any, n: Any, columns: Any, c: Any) -> tuple[Any, Any]:
    """``x - near`` and ``y``."""
    near, scale, shift = rows_of_three(lanes, apply, n, columns, c)
    t = lanes.subtract(x, near)
    return t, lanes.add(lanes.multiply(t, scale), shift)


@vectorised
def _normalise_rows(
    code: Code, x: Any, n: Any, first: Any, stop: Any, columns: Any, apply: Any, y: Any, relu: Any
) -> None:
    for is_rectified in code.either(relu):
        with code.each(first, stop) as row:
            for lanes, c in code.over(columns):
                at = code.add(code.times(row, columns), c)
                value = output(lanes, lanes.load(x, at), apply, n, columns, c)[1]
                lanes.store(lanes.rectified(value) if is_rectified else value, y, at)


@job(read(2), read(3), write(2), INT, INT, INT, INT)
def normalise(item: Any, x: Any, apply: Any, y: Any, relu: Any, blocks: Any, rows: Any, per: Any) -> None:
    """``(x - near) scale + shift`` of a block, and ReLU of it with ``relu``."""
    n, first, stop = sample_of(item, blocks, rows, per)
    _normalise_rows(x, n, first, stop, x.shape[1], apply, y, relu)


@job(
    read(3), read(1), read(1), read(1, "int64"), write(1), write(1), write(1, "int64"), NUMBER, INT, NUMBER
)  # fmt: skip
def track(
    item: Any, found: Any, mean: Any, var: Any, batches: Any, new_mean: Any, new_var: Any, new_batches: Any,
    momentum: Any, is_average: Any, unbiased: Any,
) -> None:  # fmt: skip
    """Running statistics after a batch; ``unbiased`` is ``m / (m - 1)`` for ``m`` values of a channel."""
    number = found.dtype.type
    new_batches[0] = batches[0] + 1
    factor = number(1) / number(new_batches[0]) if is_average != 0 else momentum
    for c in range(found.shape[2]):
        new_mean[c] = mean[c] * (number(1) - factor) + found[0, MEAN, c] * factor
        new_var[c] = var[c] * (number(1) - factor) + found[0, VAR, c] * unbiased * factor
