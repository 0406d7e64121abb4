"""Gradients of the normalisation of channels: sums of blocks of rows, their combination, and that of the input."""

from typing import Any

import numpy as np

from .channel_norm_forward import CORRECTION, INVERSE_STD, output, pairwise_sum, rows_of_three, sample_of
from .jobs import INT, job, read, write
from .lanes import Code, Lanes, vectorised

# Rows that are added pairwise before they are added to the sums.
GRADIENT_STEP = 4


def _gated(lanes: Lanes, dy: Any, x: Any, apply: Any, n: Any, columns: Any, c: Any, relu: bool) -> tuple[Any, Any]:
    """``dy``, behind ReLU's gate, and ``x - near``."""
    t, y = output(lanes, x, apply, n, columns, c)
    return lanes.gated(dy, y) if relu else dy, t


def _add_gradients(
    code: Code, dy: Any, x: Any, n: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any, rows: int
) -> None:
    for is_rectified in code.either(relu):
        for lanes, c in code.over_once(columns):
            shares, products = [], []
            for r in range(rows):
                start = code.add(at, c, code.times(columns, r))
                d, t = _gated(lanes, lanes.load(dy, start), lanes.load(x, start), apply, n, columns, c, is_rectified)
                shares.append(d)
                products.append(lanes.multiply(d, t))
            for k, terms in enumerate((shares, products)):
                place = code.add(to, c, code.times(columns, k))
                lanes.store(lanes.add(lanes.load(sums, place), pairwise_sum(lanes, terms)), sums, place)


@vectorised
def _add_gradients_of_rows(
    code: Code, dy: Any, x: Any, n: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any
) -> None:
    """Add `GRADIENT_STEP` rows to sums of ``dy`` and ``dy (x - near)``."""
    _add_gradients(code, dy, x, n, at, columns, apply, sums, to, relu, GRADIENT_STEP)


@vectorised
def _add_gradients_of_row(
    code: Code, dy: Any, x: Any, n: Any, at: Any, columns: Any, apply: Any, sums: Any, to: Any, relu: Any
) -> None:
    """Add one row."""
    _add_gradients(code, dy, x, n, at, columns, apply, sums, to, relu, 1)


@job(read(2), read(2), read(3), write(3), INT, INT, INT, INT)
def gradient_sums(
    item: Any, dy: Any, x: Any, apply: Any, partial: Any, relu: Any, blocks: Any, rows: Any, per: Any
) -> None:
    """Of a block: sums of ``dy`` and ``dy (x - near)`` to ``partial[item]``."""
    columns = x.shape[1]
    n, first, stop = sample_of(item, blocks, rows, per)
    to = item * 2 * columns
    partial[item] = 0.0
    whole = first + (stop - first) // GRADIENT_STEP * GRADIENT_STEP
    for r in range(first, whole, GRADIENT_STEP):
        _add_gradients_of_rows(dy, x, n, r * columns, columns, apply, partial, to, relu)
    for r in range(whole, stop):
        _add_gradients_of_row(dy, x, n, r * columns, columns, apply, partial, to, relu)


@job(read(3), read(3), read(1), INT, INT, INT, INT, write(3), write(3))
def gradients(
    item: Any, partial: Any, found: Any, weight: Any, cells: Any, width: Any, chunk: Any, constant: Any, shares: Any,
    slopes: Any,
) -> None:  # fmt: skip
    """A sample's part of ``dweight`` and ``dbias``, ``shares (N, 2, C)``, and what its ``dx`` needs, ``slopes``.

    These are the scale, slope and offset of ``dx = dy scale + (x - near) slope + offset``. The rest is as in
    `statistics`.
    """
    number = partial.dtype.type
    samples, columns, channels = found.shape[0], partial.shape[2], found.shape[2]
    blocks, chunks = partial.shape[0] // samples, (channels + chunk - 1) // chunk
    n, first = item // chunks, item % chunks * chunk
    size = min(chunk, channels - first)
    totals, products = np.zeros(size), np.zeros(size)
    for b in range(n * blocks, (n + 1) * blocks):
        for at in range(first, columns, channels):
            for c in range(size):
                totals[c] += partial[b, 0, at + c]
                products[c] += partial[b, 1, at + c]
    for i in range(size):
        c = first + i
        products[i] = (products[i] - found[n, CORRECTION, c] * totals[i]) * found[n, INVERSE_STD, c]
        shares[n, 0, c], shares[n, 1, c] = number(products[i]), number(totals[i])
        if weight.shape[0] > 0:
            totals[i] *= weight[c]
            products[i] *= weight[c]
    for begin in range(0, size, width):
        total, product = 0.0, 0.0
        for i in range(begin, begin + width):
            total += totals[i]
            product += products[i]
        for i in range(begin, begin + width):
            c = first + i
            inverse = found[n, INVERSE_STD, c]
            slope, offset = number(0), number(0)
            if constant == 0:
                slope = number(-inverse * inverse * product / (cells * width))
                offset = number(-inverse * total / (cells * width) - found[n, CORRECTION, c] * slope)
            scale = inverse * weight[c] if weight.shape[0] > 0 else inverse
            for column in range(c, columns, channels):
                slopes[n, 0, column], slopes[n, 1, column], slopes[n, 2, column] = scale, slope, offset


@job(read(3), write(2))
def add_samples(item: Any, shares: Any, total: Any) -> None:
    """The sum of the parts of all samples."""
    number = shares.dtype.type
    for k in range(2):
        for c in range(total.shape[1]):
            found = 0.0
            for n in range(shares.shape[0]):
                found += shares[n, k, c]
            total[k, c] = number(found)


@vectorised
def _differentiate_rows(
    code: Code, dy: Any, x: Any, n: Any, first: Any, stop: Any, columns: Any, apply: Any, slopes: Any, dx: Any,
    relu: Any,
) -> None:  # fmt: skip
    for is_rectified in code.either(relu):
        with code.each(first, stop) as row:
            for lanes, c in code.over(columns):
                at = code.add(code.times(row, columns), c)
                d, t = _gated(lanes, lanes.load(dy, at), lanes.load(x, at), apply, n, columns, c, is_rectified)
                scale, slope, offset = rows_of_three(lanes, slopes, n, columns, c)
                centred = lanes.add(lanes.multiply(t, slope), offset)
                lanes.store(lanes.add(lanes.multiply(d, scale), centred), dx, at)


@job(read(2), read(2), read(3), read(3), write(2), INT, INT, INT, INT)
def differentiate(
    item: Any, dy: Any, x: Any, apply: Any, slopes: Any, dx: Any, relu: Any, blocks: Any, rows: Any, per: Any
) -> None:
    """``dx`` of a block."""
    n, first, stop = sample_of(item, blocks, rows, per)
    _differentiate_rows(dy, x, n, first, stop, x.shape[1], apply, slopes, dx, relu)
