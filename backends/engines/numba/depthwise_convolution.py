"""Depthwise convolution: sums of products of each channel separately, read from the input without padding.

One formula is both a convolution and its adjoint in the weight, as in
`xpnn.backends.engines.numba.direct_convolution`::

    out[o[i], f] = start[o[i], f] + sum over j of  x[a[i] + b[j] + f] * m[r[j], f]

In a convolution, ``i`` runs over windows and ``j`` over the cells of the kernel; in the adjoint, ``i`` runs over cells
and ``j`` over windows. Windows that reach into the padding read fewer cells. Windows that read the same cells form a
class, which is computed separately, and nothing is multiplied by the zeros of the padding: where array functions
multiply them by infinity, their result is NaN, and here it is not. The sums of a tile, some ``i`` and one vector of
channels, stay in registers while ``j`` runs.
"""

from typing import Any

from .compiler import helper
from .jobs import INT, Kind, job, read, write
from .memory import fetch_run
from .register_tiles import HAS_LARGE_REGISTERS, LANES, vector_tile

# Rows of a tile, sums that share a vector of ``m``: the cells of a 3x3 kernel where registers suffice, and of a corner.
LARGE_TILE, SMALL_TILE = 9 if HAS_LARGE_REGISTERS else 6, 4
_large, _small, _one = vector_tile(LARGE_TILE, False), vector_tile(SMALL_TILE, False), vector_tile(1, False)
_large_part, _small_part, _one_part = vector_tile(LARGE_TILE, True), vector_tile(SMALL_TILE, True), vector_tile(1, True)
# Bytes of a sample that are fetched before it is read.
MOST_FETCHED = 1 << 18
_OFFSETS: tuple[Kind, ...] = (read(1, "int64"),) * 6


@helper
def _add_products(
    x: Any,
    a: Any,
    o: Any,
    count: Any,
    b: Any,
    r: Any,
    terms: Any,
    m: Any,
    features: Any,
    start: Any,
    start_step: Any,
    out: Any,
    relu: Any,
) -> None:
    """The formula for ``count`` entries of ``a`` and ``terms`` of ``b``; arrays are given by their addresses."""
    i = 0
    while i < count:
        left = count - i
        rows = LARGE_TILE if left >= LARGE_TILE else SMALL_TILE if left >= SMALL_TILE else 1
        begin, lines = a + 8 * i, o + 8 * i
        for channel in range(0, features, LANES):
            f, some = 4 * channel, features - channel
            source, right, first, to = x + f, m + f, start + f, out + f
            if some >= LANES:
                if rows == LARGE_TILE:
                    _large(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
                elif rows == SMALL_TILE:
                    _small(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
                else:
                    _one(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
            elif rows == LARGE_TILE:
                _large_part(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
            elif rows == SMALL_TILE:
                _small_part(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
            else:
                _one_part(source, begin, lines, b, r, terms, right, first, start_step, to, features, some, relu)
        i += rows


@job(read(2), *_OFFSETS, read(2), read(1), INT, INT, INT, write(3))
def convolve_channels(
    item: Any,
    x: Any,
    begin: Any,
    windows: Any,
    split: Any,
    within: Any,
    cells: Any,
    parts: Any,
    m: Any,
    bias: Any,
    relu: Any,
    samples: Any,
    pieces: Any,
    out: Any,
) -> None:
    """Each channel of ``x (N, S*F)`` with its kernel ``m (K, F)``, plus ``bias (F,)``: ``out (N, O, F)``.

    The offsets are `window_offsets.WindowClasses`. An item computes one of ``pieces`` of the classes for some samples.
    """
    features = out.shape[2]
    piece, first, classes = item % pieces, item // pieces * samples, len(split) - 1
    for n in range(first, min(first + samples, out.shape[0])):
        source, to = x[n].ctypes.data, out[n].ctypes.data
        if pieces == 1:
            # Tiles read short pieces of many rows, which the processor does not foresee.
            fetch_run(source, min(x.shape[1] * x.itemsize, MOST_FETCHED))
            fetch_run(to, min(out.shape[1] * features * out.itemsize, MOST_FETCHED))
        for number in range(classes * piece // pieces, classes * (piece + 1) // pieces):
            at, part = split[number], parts[number]
            a, o = begin.ctypes.data + 8 * at, windows.ctypes.data + 8 * at
            b, r = within.ctypes.data + 8 * part, cells.ctypes.data + 8 * part
            count, terms, right = split[number + 1] - at, parts[number + 1] - part, m.ctypes.data + 0
            _add_products(source, a, o, count, b, r, terms, right, features, bias.ctypes.data + 0, 0, to, relu)


@job(read(2), *_OFFSETS, read(3), INT, write(3))
def correlate_channels(
    item: Any,
    x: Any,
    begin: Any,
    windows: Any,
    split: Any,
    within: Any,
    cells: Any,
    parts: Any,
    dy: Any,
    pieces: Any,
    sums: Any,
) -> None:
    """The adjoint in the cells, a sum over the samples and pieces of each lane: ``sums (L, K, F)``."""
    lanes, kernel, features = sums.shape
    out = sums[item].ctypes.data
    for k in range(kernel):
        for f in range(features):
            sums[item, k, f] = 0
    classes, units = len(split) - 1, dy.shape[0] * pieces
    for unit in range(units * item // lanes, units * (item + 1) // lanes):
        n, piece = unit // pieces, unit % pieces
        source, m = x[n].ctypes.data, dy[n].ctypes.data
        if pieces == 1:
            fetch_run(source, min(x.shape[1] * x.itemsize, MOST_FETCHED))
            fetch_run(m, min(dy.shape[1] * features * dy.itemsize, MOST_FETCHED))
        for number in range(classes * piece // pieces, classes * (piece + 1) // pieces):
            at, part = split[number], parts[number]
            b, r = begin.ctypes.data + 8 * at, windows.ctypes.data + 8 * at
            a, o = within.ctypes.data + 8 * part, cells.ctypes.data + 8 * part
            terms, count = split[number + 1] - at, parts[number + 1] - part
            _add_products(source, a, o, count, b, r, terms, m, features, out, features, out, 0)


@job(read(2), INT, write(2))
def repeat_channels(item: Any, x: Any, rows: Any, out: Any) -> None:
    """Each channel of ``x (R, C)`` some times in a row: ``out (R, F)``; an item copies some rows."""
    times = out.shape[1] // x.shape[1]
    for i in range(item * rows, min((item + 1) * rows, x.shape[0])):
        for c in range(x.shape[1]):
            for t in range(times):
                out[i, c * times + t] = x[i, c]


@job(read(2), INT, write(2))
def sum_repeated_channels(item: Any, y: Any, rows: Any, out: Any) -> None:
    """The adjoint of `repeat_channels`: ``y (R, F)`` to ``out (R, C)``."""
    times = y.shape[1] // out.shape[1]
    for i in range(item * rows, min((item + 1) * rows, y.shape[0])):
        for c in range(out.shape[1]):
            total = y[i, c * times]
            for t in range(1, times):
                total += y[i, c * times + t]
            out[i, c] = total
