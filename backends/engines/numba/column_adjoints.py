"""Jobs of the gradients of a convolution by columns: the adjoints of `column_jobs` in the input and in the weight.

Every job computes for each group of channels, and reads sizes at the indices of `convolution_sizes`.
"""

from typing import Any

import numpy as np

from .blas import gemm
from .column_jobs import cut
from .compiler import helper
from .convolution_sizes import BEFORE, CHANNELS, DILATION, INPUT, KERNEL, OUTPUT, STRIDE
from .jobs import INT, job, read, write
from .memory import add_run, clear_run


@helper
def _fold(
    columns: Any, start: Any, g: Any, groups: Any, window_row: Any, window_rows: Any, row: Any, rows: Any, dx: Any
) -> None:
    """Add columns up where windows read: rows of the first axis of one sample, ``dx (rows * S1 * S2 * C,)``.

    At ``start`` in ``columns`` are those of the windows in ``window_rows`` rows, from ``window_row`` on, each
    ``(G, K, C/G)``.
    """
    number, size, result, numbers = dx.dtype.type(0), dx.itemsize, dx.ctypes.data + 0, columns.ctypes.data + 0
    k1, k2, length, every = g[KERNEL + 1], g[KERNEL + 2], g[INPUT + 2], g[CHANNELS]
    channels = every // groups
    cells = g[KERNEL] * k1 * k2
    clear_run(result, len(dx), number)
    for o0 in range(window_row, window_row + window_rows):
        for c0 in range(g[KERNEL]):
            i0 = o0 * g[STRIDE] + c0 * g[DILATION] - g[BEFORE]
            if i0 < row or i0 >= row + rows:
                continue
            for o1 in range(g[OUTPUT + 1]):
                line = start + ((o0 - window_row) * g[OUTPUT + 1] + o1) * g[OUTPUT + 2] * cells * every
                for c1 in range(k1):
                    i1 = o1 * g[STRIDE + 1] + c1 * g[DILATION + 1] - g[BEFORE + 1]
                    if i1 < 0 or i1 >= g[INPUT + 1]:
                        continue
                    to_line = ((i0 - row) * g[INPUT + 1] + i1) * length * every
                    for c2 in range(k2):
                        at = line + ((c0 * k1 + c1) * k2 + c2) * channels
                        for o2 in range(g[OUTPUT + 2]):
                            i2 = o2 * g[STRIDE + 2] + c2 * g[DILATION + 2] - g[BEFORE + 2]
                            if 0 <= i2 < length:
                                for group in range(groups):
                                    to = to_line + i2 * every + group * channels
                                    source = at + (o2 * groups + group) * cells * channels
                                    add_run(result + size * to, numbers + size * source, channels, number)


@job(read(1), read(1, "int64"), INT, INT, write(2))
def fold_columns(item: Any, columns: Any, g: Any, groups: Any, rows: Any, dx: Any) -> None:
    """``dx (N, S*C)`` from columns ``(N*O, G*K*C/G)``; an item computes some rows of the first axis of a sample."""
    blocks = -(-g[INPUT] // rows)
    sample, row = item // blocks, item % blocks * rows
    count, size = min(rows, g[INPUT] - row), dx.shape[1] // g[INPUT]
    begin, end = _windows_of_rows(g, row, count)
    cells = g[OUTPUT + 1] * g[OUTPUT + 2]
    start = (sample * g[OUTPUT] + begin) * cells * g[KERNEL] * g[KERNEL + 1] * g[KERNEL + 2] * g[CHANNELS]
    _fold(columns, start, g, groups, begin, end - begin, row, count, dx[sample, row * size : (row + count) * size])


@helper
def _windows_of_rows(g: Any, row: Any, count: Any) -> Any:
    """The rows of windows that read some rows of the first axis: the first, and the one after the last."""
    least = row + g[BEFORE] - (g[KERNEL] - 1) * g[DILATION]
    begin = min(max(0, -(-least // g[STRIDE])), g[OUTPUT])
    end = min((row + count - 1 + g[BEFORE]) // g[STRIDE] + 1, g[OUTPUT])
    return begin, max(begin, end)


@job(INT, read(2), read(1, "int64"), read(2), INT, INT, INT, write(2), uses_blas=True)
def multiply_and_fold(
    item: Any, blas: Any, dy: Any, g: Any, weight: Any, groups: Any, samples: Any, rows: Any, dx: Any
) -> None:
    """``dx (N, S*C)`` from ``dy (N*O, F)`` and ``weight (K*C/G, F)``: an item owns samples, or rows of one."""
    blocks = -(-g[INPUT] // rows)
    sample, row = item // blocks * samples, item % blocks * rows
    count, most = min(rows, g[INPUT] - row), min(samples, dx.shape[0] - sample)
    begin, end = _windows_of_rows(g, row, count)
    # Samples follow one another if they are whole; rows that no window reads at their ends are computed too.
    if most > 1:
        begin, end = 0, g[OUTPUT]
    size, cells, every = dx.shape[1] // g[INPUT], g[OUTPUT + 1] * g[OUTPUT + 2], dy.shape[1]
    depth, features, windows = weight.shape[0], every // groups, (end - begin) * cells
    columns = np.empty(groups * windows * most * depth, dx.dtype)
    width, number = dx.itemsize, dx.dtype.type(0)
    for group in range(groups if windows else 0):
        a = dy.ctypes.data + width * ((sample * g[OUTPUT] + begin) * cells * every + group * features)
        b, c = weight.ctypes.data + width * group * features, columns.ctypes.data + width * group * depth
        gemm(blas, 0, 1, windows * most, depth, features, a, every, b, every, 0, c, groups * depth, number)
    for n in range(most):
        out = dx[sample + n, row * size : (row + count) * size]
        _fold(columns, n * windows * groups * depth, g, groups, begin, end - begin, row, count, out)


@helper
def _add_product(
    blas: Any,
    columns: Any,
    step: Any,
    rows: Any,
    depth: Any,
    dy: Any,
    first: Any,
    feature: Any,
    features: Any,
    keep: Any,
    out: Any,
    where: Any,
) -> None:
    """Columns (``rows`` windows at that address, ``step`` apart) turned, times rows of ``dy``, to or plus ``out``."""
    size, every = dy.itemsize, dy.shape[1]
    b = dy.ctypes.data + size * (first * every + feature)
    gemm(blas, 1, 0, depth, features, rows, columns, step, b, every, keep, out + size * where, every, dy.dtype.type(0))


@job(INT, read(1), read(1, "int64"), read(2), INT, INT, INT, write(3), uses_blas=True)
def correlate_lanes(
    item: Any, blas: Any, x: Any, g: Any, dy: Any, groups: Any, rows: Any, is_pointwise: Any, sums: Any
) -> None:
    """Columns turned times ``dy (M, F)``, for each lane the sum over its blocks of windows: ``sums (L, K*C/G, F)``."""
    lanes, depth, every = sums.shape
    features, windows, size = every // groups, dy.shape[0], dy.itemsize
    cells, channels = g[KERNEL] * g[KERNEL + 1] * g[KERNEL + 2], g[CHANNELS] // groups
    blocks = -(-windows // rows)
    columns = np.empty(0 if is_pointwise else rows * depth, x.dtype)
    begin, keep = blocks * item // lanes, 0
    for block in range(begin, blocks * (item + 1) // lanes):
        first, last = block * rows, min((block + 1) * rows, windows)
        for group in range(groups):
            a, step = x.ctypes.data + size * (first * g[CHANNELS] + group * channels), g[CHANNELS]
            if not is_pointwise:
                cut(x, g, first, last, 0, cells, group * channels, channels, 0, columns)
                a, step = columns.ctypes.data + 0, depth
            out, feature = sums.ctypes.data + size * item * depth * every, group * features
            _add_product(blas, a, step, last - first, depth, dy, first, feature, features, keep, out, feature)
        keep = 1


@job(INT, read(1), read(1, "int64"), read(2), read(2, "int64"), INT, INT, INT, write(2), uses_blas=True)
def correlate_parts(
    item: Any, blas: Any, x: Any, g: Any, dy: Any, parts: Any, groups: Any, rows: Any, is_pointwise: Any, out: Any
) -> None:
    """Columns turned times ``dy (M, F)``: ``out (K*C/G, F)``; an item computes a part of the rows for one group.

    ``parts (P, 4)`` has the first cell, the number of cells, the first channel of the group, the number of channels.
    """
    part, group = item % parts.shape[0], item // parts.shape[0]
    cell, cells, channel, channels = parts[part, 0], parts[part, 1], parts[part, 2], parts[part, 3]
    every, within, windows, size = out.shape[1], g[CHANNELS] // groups, dy.shape[0], dy.itemsize
    features = every // groups
    depth, place = cells * channels, (cell * within + channel) * every + group * features
    columns = np.empty(0 if is_pointwise else rows * depth, x.dtype)
    for first in range(0, windows, rows):
        last = min(first + rows, windows)
        a, step = x.ctypes.data + size * (first * g[CHANNELS] + group * within + channel), g[CHANNELS]
        if not is_pointwise:
            cut(x, g, first, last, cell, cells, group * within + channel, channels, 0, columns)
            a, step = columns.ctypes.data + 0, depth
        keep = 1 if first > 0 else 0
        target = out.ctypes.data + 0
        _add_product(blas, a, step, last - first, depth, dy, first, group * features, features, keep, target, place)
