"""Jobs of convolution by columns: windows copied to the rows of a matrix, products.

A row of the columns is a window; its entries are the kernel's cells times channels. An item of a job cuts the columns
of some windows into memory of its own and multiplies them while they are in a cache, or, where windows are few, one job
cuts all columns and another shares the products.

Every job computes for each group of channels, and reads sizes at the indices of `convolution_sizes`. The adjoints are
in `column_adjoints`.
"""

from typing import Any

import numpy as np

from .blas import gemm
from .compiler import helper
from .convolution_sizes import BEFORE, CHANNELS, DILATION, INPUT, KERNEL, OUTPUT, STRIDE
from .jobs import INT, job, read, write
from .memory import add_run, clear_run, copy_run

# Features of a part of a product, to which the bias is added while it is in a cache.
PART_FEATURES = 128


@helper
def cut(
    x: Any,
    g: Any,
    first: Any,
    last: Any,
    cell: Any,
    cells: Any,
    channel: Any,
    channels: Any,
    by_channel: Any,
    columns: Any,
) -> None:
    """Copy some channels and cells of the windows ``first .. last - 1`` of ``x (N*S*C,)`` to ``columns``.

    Rows of ``columns (n * cells * channels,)`` have channels last, or cells last if ``by_channel``. Padding is 0.
    """
    number, size = x.dtype.type(0), x.itemsize
    every, height, middle, length = g[CHANNELS], g[INPUT], g[INPUT + 1], g[INPUT + 2]
    k1, k2 = g[KERNEL + 1], g[KERNEL + 2]
    has_runs = channels == every and cells == g[KERNEL] * k1 * k2 and g[DILATION + 2] == 1 and not by_channel
    step = k2 if has_runs else 1
    to_cell, to_channel = (1, cells) if by_channel else (channels, 1)
    begin0, begin1, begin2 = cell // k2 // k1, cell // k2 % k1, cell % k2
    o2, o1 = first % g[OUTPUT + 2], first // g[OUTPUT + 2]
    o0, o1 = o1 // g[OUTPUT + 1], o1 % g[OUTPUT + 1]
    n, o0 = o0 // g[OUTPUT], o0 % g[OUTPUT]
    for window in range(last - first):
        start = window * cells * channels
        c0, c1, c2 = begin0, begin1, begin2
        for k in range(0, cells, step):
            i0 = o0 * g[STRIDE] + c0 * g[DILATION] - g[BEFORE]
            i1 = o1 * g[STRIDE + 1] + c1 * g[DILATION + 1] - g[BEFORE + 1]
            i2 = o2 * g[STRIDE + 2] + c2 * g[DILATION + 2] - g[BEFORE + 2]
            c2 += step
            if c2 == k2:
                c2, c1 = 0, c1 + 1
                if c1 == k1:
                    c1, c0 = 0, c0 + 1
            inside = 0 <= i0 < height and 0 <= i1 < middle
            low = min(max(0, -i2), step) if inside else step
            high = max(low, min(step, length - i2)) if inside else step
            to = start + k * to_cell
            at = (((n * height + i0) * middle + i1) * length + i2) * every + channel
            if to_channel == 1:
                place = columns.ctypes.data + size * to
                clear_run(place, low * channels, number)
                skipped = size * low * channels
                copy_run(place + skipped, x.ctypes.data + size * at + skipped, (high - low) * channels, number)
                clear_run(place + size * high * channels, (step - high) * channels, number)
                continue
            row = columns[to:]
            if low == 0 and high == 1:
                source = x[at:]
                for c in range(channels):
                    row[c * to_channel] = source[c]
            else:
                for c in range(channels):
                    row[c * to_channel] = number
        o2 += 1
        if o2 == g[OUTPUT + 2]:
            o2, o1 = 0, o1 + 1
            if o1 == g[OUTPUT + 1]:
                o1, o0 = 0, o0 + 1
                if o0 == g[OUTPUT]:
                    o0, n = 0, n + 1


@helper
def _finish(y: Any, first: Any, last: Any, feature: Any, features: Any, bias: Any, relu: Any) -> None:
    """Add the bias to some rows and features of ``y (M, F)``, and compute the ReLU."""
    number, zero = y.dtype.type(0), y.dtype.type(0)
    place = y.ctypes.data + y.itemsize * (first * y.shape[1] + feature)
    for i in range(last - first if len(bias) else 0):
        add_run(place + y.itemsize * i * y.shape[1], bias.ctypes.data + y.itemsize * feature, features, number)
    for i in range(first, last if relu else first):
        row = y[i, feature : feature + features]
        for f in range(features):
            row[f] = zero if row[f] <= zero else row[f]


@job(read(1), read(1, "int64"), INT, INT, INT, write(2))
def cut_columns(item: Any, x: Any, g: Any, groups: Any, by_channel: Any, rows: Any, columns: Any) -> None:
    """All columns of one group, or of each in turn: ``columns (G * M, K*C/G)``; an item cuts some windows."""
    windows = columns.shape[0] // groups
    blocks = -(-windows // rows)
    group, block = item // blocks, item % blocks
    first, last = block * rows, min((block + 1) * rows, windows)
    cells, channels = g[KERNEL] * g[KERNEL + 1] * g[KERNEL + 2], g[CHANNELS] // groups
    out = columns[group * windows + first : group * windows + last].reshape(-1)
    cut(x, g, first, last, 0, cells, group * channels, channels, by_channel, out)


@job(INT, read(1), INT, INT, read(1), INT, INT, INT, INT, INT, INT, INT, read(1), INT, write(2), uses_blas=True)
def multiply(
    item: Any,
    blas: Any,
    left: Any,
    left_step: Any,
    left_group: Any,
    right: Any,
    right_is_turned: Any,
    right_step: Any,
    right_group: Any,
    groups: Any,
    depth: Any,
    rows: Any,
    part: Any,
    bias: Any,
    relu: Any,
    out: Any,
) -> None:
    """``out (M, G*A)``: for each group, rows of ``left`` times ``right (depth, A)``, plus ``bias (G*A,)`` if given.

    Rows of ``left`` are ``left_step`` entries apart, and those of a group begin ``left_group`` after the last one's. An
    item computes ``rows`` rows and ``part`` columns.
    """
    windows, columns = out.shape[0], out.shape[1] // groups
    blocks, parts = -(-windows // rows), -(-columns // part)
    block, position = item % blocks, item // blocks
    group, place = position // parts, position % parts * part
    first, last = block * rows, min((block + 1) * rows, windows)
    count, size, number = min(part, columns - place), out.itemsize, out.dtype.type(0)
    a = left.ctypes.data + size * (first * left_step + group * left_group)
    b = right.ctypes.data + size * (group * right_group + (place * right_step if right_is_turned else place))
    c = out.ctypes.data + size * (first * out.shape[1] + group * columns + place)
    gemm(blas, 0, right_is_turned, last - first, count, depth, a, left_step, b, right_step, 0, c, out.shape[1], number)
    _finish(out, first, last, group * columns + place, count, bias, relu)


@job(INT, read(1), read(1, "int64"), read(1), INT, INT, INT, INT, INT, read(1), INT, write(2), uses_blas=True)
def cut_and_multiply(
    item: Any,
    blas: Any,
    x: Any,
    g: Any,
    right: Any,
    right_is_turned: Any,
    right_step: Any,
    right_group: Any,
    groups: Any,
    rows: Any,
    bias: Any,
    relu: Any,
    y: Any,
) -> None:
    """``y (M, F)``: an item cuts the columns of ``rows`` windows and multiplies them."""
    features, size, number = y.shape[1] // groups, y.itemsize, y.dtype.type(0)
    first, last = item * rows, min((item + 1) * rows, y.shape[0])
    cells, channels = g[KERNEL] * g[KERNEL + 1] * g[KERNEL + 2], g[CHANNELS] // groups
    depth = cells * channels
    columns = np.empty((last - first) * depth, x.dtype)
    for group in range(groups):
        cut(x, g, first, last, 0, cells, group * channels, channels, 0, columns)
        for place in range(0, features, PART_FEATURES):
            count = min(PART_FEATURES, features - place)
            a, feature = columns.ctypes.data + 0, group * features + place
            b = right.ctypes.data + size * (group * right_group + (place * right_step if right_is_turned else place))
            c = y.ctypes.data + size * (first * y.shape[1] + feature)
            gemm(
                blas, 0, right_is_turned, last - first, count, depth, a, depth, b, right_step, 0, c, y.shape[1], number
            )
            _finish(y, first, last, feature, count, bias, relu)
