"""The jobs of `xpnn.backends.engines.numba.exact_columns`: columns of slices, their products and results.

Columns have the cells of the kernel before the channels.
"""

from typing import Any

import numpy as np

from .blas import gemm
from .compiler import helper
from .exact_slices import first_slice, scale_of, second_slice
from .jobs import INT, NUMBER, job, read, write
from .vectors import vector_at


@helper
def _product(
    blas: Any,
    transposed: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    a: Any,
    pitch_a: Any,
    b: Any,
    sums: Any,
    totals: Any,
    most: Any,
) -> None:
    """``op(a) b`` of whole numbers by addresses, to ``sums``; more than ``most`` terms are added as int64 totals."""
    if depth <= most:
        gemm(blas, transposed, 0, rows, columns, depth, a, pitch_a, b, columns, 0, sums.ctypes.data, columns, 0.0)
        return
    for i in range(rows * columns):
        totals[i] = 0
    for start in range(0, depth, most):
        count, first = min(most, depth - start), a + 8 * start * (pitch_a if transposed else 1)
        second = b + 8 * start * columns
        to = sums.ctypes.data
        gemm(blas, transposed, 0, rows, columns, count, first, pitch_a, second, columns, 0, to, columns, 0.0)
        for i in range(rows * columns):
            totals[i] += np.int64(sums[i])
    for i in range(rows * columns):
        sums[i] = np.float64(totals[i])


@helper
def _combine(sums: Any, first: Any, features: Any, count: Any, unit: Any, scale: Any, factors: Any, out: Any) -> None:
    """A row of products ``(count F,)`` to ``out (F,)``: their sum with powers of two."""
    number = sums.dtype.type(0)
    leading = vector_at(sums.ctypes.data, first, features, number)
    lower = vector_at(sums.ctypes.data, first + (count - 1) * features, features, number)
    if count == 2:
        for f in range(len(out)):
            out[f] = (lower[f] * unit + leading[f]) * scale * factors[f]
    else:
        for f in range(len(out)):
            out[f] = (leading[f] + 0.0) * scale * factors[f]


@job(
    read(4), read(1), read(1), read(2), read(1), read(1), write(2), NUMBER, *[INT] * 14, uses_blas=True, contract=False
)
def forward(
    item: Any,
    x: Any,
    s_factors: Any,
    s_scales: Any,
    slices: Any,
    t_scales: Any,
    bias: Any,
    y: Any,
    unit: Any,
    count: Any,
    rows: Any,
    columns: Any,
    kernel_height: Any,
    kernel_width: Any,
    row_stride: Any,
    column_stride: Any,
    row_dilation: Any,
    column_dilation: Any,
    above: Any,
    left: Any,
    per: Any,
    most: Any,
    blas: Any,
) -> None:
    """``y (N O P, F)`` of ``x (N, H, W, C)`` and slices ``(K C, count F)``; an item has ``per`` rows."""
    height, width, channels = x.shape[1:]
    depth, features, number = slices.shape[0], y.shape[1], x.dtype.type(0)
    first = item * per
    some = min(per, y.shape[0] - first)
    part = np.empty((some, depth), x.dtype)
    for i in range(some):
        n, row, column = (first + i) // (rows * columns), (first + i) // columns % rows, (first + i) % columns
        factor = s_factors[n]
        for k in range(kernel_height * kernel_width):
            h, w = (
                row * row_stride + k // kernel_width * row_dilation - above,
                column * column_stride + k % kernel_width * column_dilation - left,
            )
            to = vector_at(part.ctypes.data, i * depth + k * channels, channels, number)
            if 0 <= h < height and 0 <= w < width:
                source = vector_at(x.ctypes.data, ((n * height + h) * width + w) * channels, channels, number)
                for c in range(len(to)):
                    to[c] = first_slice(source[c] * factor)
            else:
                for c in range(len(to)):
                    to[c] = 0.0
    sums = np.empty(some * count * features, x.dtype)
    totals = np.empty(some * count * features if depth > most else 1, np.int64)
    columns_of = count * features
    _product(blas, 0, some, columns_of, depth, part.ctypes.data, depth, slices.ctypes.data, sums, totals, most)
    for i in range(some):
        out, n = y[first + i], (first + i) // (rows * columns)
        _combine(sums, i * columns_of, features, count, unit, s_scales[n], t_scales, out)
        for f in range(len(bias)):
            out[f] += bias[f]


@job(read(4), read(2), read(1), read(1), write(3, "int64"), NUMBER, *[INT] * 17, uses_blas=True)
def gradient(
    item: Any,
    x: Any,
    dy: Any,
    s_factors: Any,
    t_factors: Any,
    totals: Any,
    again: Any,
    count: Any,
    rows: Any,
    columns: Any,
    kernel_height: Any,
    kernel_width: Any,
    row_stride: Any,
    column_stride: Any,
    row_dilation: Any,
    column_dilation: Any,
    above: Any,
    left: Any,
    chunk: Any,
    chunks: Any,
    per: Any,
    block: Any,
    blas: Any,
    depth: Any,
) -> None:
    """Columns of ``x``, transposed, times ``dy (N O P, F)`` to totals ``(lanes, K C, count F)``.

    An item has ``per`` rows, in blocks of ``block``, and ``chunk`` columns.
    """
    height, width, channels = x.shape[1:]
    features, number, lane = dy.shape[1], x.dtype.type(0), item // chunks
    from_column = item % chunks * chunk
    end_column, end = min(depth, from_column + chunk), min(dy.shape[0], (lane + 1) * per)
    wanted, both = end_column - from_column, count * features
    part, right = np.empty((block, wanted), x.dtype), np.empty((block, both), x.dtype)
    sums = np.empty(wanted * both, x.dtype)
    total = totals[lane]
    for i in range(from_column, end_column):
        for f in range(both):
            total[i, f] = 0
    for first in range(lane * per, end, block):
        some = min(block, end - first)
        for i in range(some):
            n, row, column = (first + i) // (rows * columns), (first + i) // columns % rows, (first + i) % columns
            for k in range(from_column // channels, -(-end_column // channels)):
                start = max(from_column, k * channels)
                size, c0 = min(end_column, (k + 1) * channels) - start, start - k * channels
                h, w = (
                    row * row_stride + k // kernel_width * row_dilation - above,
                    column * column_stride + k % kernel_width * column_dilation - left,
                )
                to = vector_at(part.ctypes.data, i * wanted + start - from_column, size, number)
                if 0 <= h < height and 0 <= w < width:
                    place = ((n * height + h) * width + w) * channels + c0
                    source = vector_at(x.ctypes.data, place, size, number)
                    factor = vector_at(s_factors.ctypes.data, c0, size, number)
                    for c in range(len(to)):
                        to[c] = first_slice(source[c] * factor[c])
                else:
                    for c in range(len(to)):
                        to[c] = 0.0
            source = vector_at(dy.ctypes.data, (first + i) * features, features, number)
            to = vector_at(right.ctypes.data, i * both, features, number)
            for f in range(len(to)):
                to[f] = first_slice(source[f] * t_factors[f])
            if count == 2:
                to = vector_at(right.ctypes.data, i * both + features, features, number)
                for f in range(len(to)):
                    to[f] = second_slice(source[f] * t_factors[f], again)
        a, b, to_sums = part.ctypes.data, right.ctypes.data, sums.ctypes.data
        gemm(blas, 1, 0, wanted, both, some, a, wanted, b, both, 0, to_sums, both, number)
        for i in range(wanted):
            row_sums = vector_at(sums.ctypes.data, i * both, both, number)
            row_total = total[from_column + i]
            for f in range(len(row_sums)):
                row_total[f] += np.int64(row_sums[f])


@job(read(3, "int64"), write(2, "int64"), INT)
def add_lanes(item: Any, totals: Any, quanta: Any, per: Any) -> None:
    """Totals ``(lanes, K C, count F)`` added to quanta ``(K C, count F)``; an item has ``per`` rows."""
    for i in range(item * per, min(len(quanta), (item + 1) * per)):
        out = quanta[i]
        for f in range(len(out)):
            out[f] = 0
        for lane in range(len(totals)):
            row = totals[lane, i]
            for f in range(len(out)):
                out[f] += row[f]


@job(read(4), read(2), read(1), write(4), NUMBER, NUMBER, *[INT] * 11, uses_blas=True, contract=False)
def input_gradient(
    item: Any,
    dy: Any,
    slices: Any,
    t_scales: Any,
    dx: Any,
    unit: Any,
    most_left: Any,
    count: Any,
    kernel_height: Any,
    kernel_width: Any,
    row_stride: Any,
    column_stride: Any,
    row_dilation: Any,
    column_dilation: Any,
    above: Any,
    left: Any,
    most: Any,
    blas: Any,
) -> None:
    """``dx`` of the sample ``item``: each row of ``dy (N, O, P, F)`` times slices ``(F, count K C)``, cells added up.

    Each row of ``dy`` has one scale.
    """
    rows, columns, features = dy.shape[1:]
    height, width, channels = dx.shape[1:]
    number, depth = dy.dtype.type(0), kernel_height * kernel_width * channels
    part, scales = np.empty((rows * columns, features), dy.dtype), np.empty(rows * columns, dy.dtype)
    for i in range(rows * columns):
        source = vector_at(dy.ctypes.data, (item * rows * columns + i) * features, features, number)
        scales[i], to = scale_of(source), part[i]
        factor = most_left / scales[i]
        for f in range(len(to)):
            to[f] = first_slice(source[f] * factor)
    size = rows * columns * count * depth
    sums, totals = np.empty(size, dy.dtype), np.empty(size if features > most else 1, np.int64)
    a, b = part.ctypes.data, slices.ctypes.data
    _product(blas, 0, rows * columns, count * depth, features, a, features, b, sums, totals, most)
    found = np.empty((rows * columns, depth), dy.dtype)
    for i in range(rows * columns):
        _combine(sums, i * count * depth, depth, count, unit, scales[i] / most_left, t_scales, found[i])
    sample = vector_at(dx.ctypes.data, item * height * width * channels, height * width * channels, number)
    for i in range(len(sample)):
        sample[i] = 0.0
    for k in range(kernel_height * kernel_width):
        for i in range(rows * columns):
            h = i // columns * row_stride + k // kernel_width * row_dilation - above
            w = i % columns * column_stride + k % kernel_width * column_dilation - left
            if 0 <= h < height and 0 <= w < width:
                to = vector_at(dx.ctypes.data, ((item * height + h) * width + w) * channels, channels, number)
                source = vector_at(found.ctypes.data, i * depth + k * channels, channels, number)
                for c in range(len(to)):
                    to[c] += source[c]
