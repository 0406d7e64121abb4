"""Max pooling over windows of 2x2 cells at stride 2 without padding, which most nets use: rows of windows at a time."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous
from .jobs import INT, job, read, write
from .lanes import Code, vectorised
from .pool import perform

# Entries of the input that an item reads.
ITEM_ENTRIES = 1 << 16


@vectorised
def _largest_of_row(
    code: Code, x: Any, above: Any, below: Any, channels: Any, count: Any, best: Any, cell: Any, to: Any
) -> None:
    """Maxima of ``count`` windows whose rows begin at ``above`` and ``below`` in ``x``, and their cells."""
    builder, kind = code.builder, cell.type.pointee
    for lanes, c in code.over(channels):
        with code.each(0, count) as q:
            left = code.add(code.times(code.times(q, channels), 2), c)
            right = code.add(left, channels)
            most = lanes.load(x, code.add(above, left))
            which = lanes.whole_constant(0)
            for k, at in enumerate((code.add(above, right), code.add(below, left), code.add(below, right)), 1):
                value = lanes.load(x, at)
                # "Not less or equal" is true for a NaN; after a first NaN nothing wins.
                wins = builder.fcmp_unordered(">", value, most)
                wins = builder.and_(wins, builder.fcmp_ordered("ord", most, most))
                most = builder.select(wins, value, most)
                which = builder.select(wins, lanes.whole_constant(k), which)
            at = code.add(to, code.times(q, channels), c)
            lanes.store(most, best, at)
            lanes.store(builder.trunc(which, lanes.vector(kind)), cell, at)


@vectorised
def _put_row(
    code: Code, dy: Any, cell: Any, begin: Any, channels: Any, count: Any, dx: Any, above: Any, below: Any
) -> None:
    """``dy`` of ``count`` windows to their cells, and 0 to the others."""
    builder, kind = code.builder, cell.type.pointee
    for lanes, c in code.over(channels):
        with code.each(0, count) as q:
            at = code.add(begin, code.times(q, channels), c)
            share, which = lanes.load(dy, at), lanes.load(cell, at)
            left = code.add(code.times(code.times(q, channels), 2), c)
            right = code.add(left, channels)
            places = (code.add(above, left), code.add(above, right), code.add(below, left), code.add(below, right))
            for k, place in enumerate(places):
                same = builder.icmp_signed("==", which, lanes.constant_of(kind, k))
                lanes.store(builder.select(same, share, lanes.constant(0.0)), dx, place)


@job(read(4), write(4), write(4, "int8"), INT)
def _maxima(item: Any, x: Any, best: Any, cell: Any, per: Any) -> None:
    rows, columns, channels = x.shape[1:]
    samples, out_rows, count = best.shape[:3]
    for row in range(item * per, min((item + 1) * per, samples * out_rows)):
        above = (row // out_rows * rows + row % out_rows * 2) * columns * channels
        _largest_of_row(x, above, above + columns * channels, channels, count, best, cell, row * count * channels)


@job(read(4), read(4, "int8"), write(4), INT)
def _maxima_back(item: Any, dy: Any, cell: Any, dx: Any, per: Any) -> None:
    rows, columns, channels = dx.shape[1:]
    samples, out_rows, count = dy.shape[:3]
    for row in range(item * per, min((item + 1) * per, samples * out_rows)):
        n, r = row // out_rows, row % out_rows * 2
        above = (n * rows + r) * columns * channels
        _put_row(dy, cell, row * count * channels, channels, count, dx, above, above + columns * channels)
        # What no window reads: the last column or row of an odd number.
        dx[n, r : r + 2, 2 * count :] = 0.0
        if r + 2 == 2 * out_rows:
            dx[n, 2 * out_rows :] = 0.0


class HalvingMaxPool:
    """Maxima over windows of 2x2 cells at stride 2; arrays are ``(N, H, W, C)``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        samples, rows, columns, channels = shape
        self.shape, self.pooled = shape, (samples, rows // 2, columns // 2, channels)
        self.per = max(1, ITEM_ENTRIES // max(1, 2 * columns * channels))
        self.items = -(-samples * (rows // 2) // self.per)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and the row-major index in its window of the first one."""
        best, cell = empty(self.pooled, x.dtype), empty(self.pooled, np.int8)
        perform(_maxima.bind(self.items, contiguous(x), best, cell, self.per))
        return best, cell

    def backward(self, dy: Array, cell: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx = empty(self.shape, dy.dtype)
        perform(_maxima_back.bind(self.items, contiguous(dy), contiguous(cell), dx, self.per))
        return dx
