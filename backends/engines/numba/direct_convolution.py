"""Direct convolution: sums of products, without columns.

One formula is both a convolution and its adjoint in the weight::

    out[i, f] = start[i, f] + sum over j of  x[a[i] + b[j]] * m[j, f]

In a convolution, ``a`` are the offsets of windows in ``x``, ``b`` those of cells and channels in a window, and ``m`` is
the weight; in its adjoint, ``a`` and ``b`` are swapped and ``m`` is ``dy``. The sums of a tile, some ``i`` and some
features, stay in registers while ``j`` runs.

A batch is cut into blocks of samples, or of rows of a sample, whose padded input stays in a cache.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD architectures", 2018.
"""

from typing import Any

import numpy as np

from .compiler import helper
from .convolution_layouts import pad_rows
from .convolution_sizes import CHANNELS, DILATION, KERNEL, OUTPUT, SAMPLE_STEP, SAMPLES, STRIDE
from .jobs import INT, job, read, write
from .memory import hold
from .register_tiles import HALF_LANES, HAS_LARGE_REGISTERS, LANES, spread_tile

# Rows of a tile, and vectors of one for many features: sums that fit into registers.
ROWS = 8 if HAS_LARGE_REGISTERS else 6
VECTORS = 2 if HAS_LARGE_REGISTERS else 1
_WIDE = VECTORS * LANES
_wide, _wide_row = spread_tile(ROWS, VECTORS, LANES, False), spread_tile(1, VECTORS, LANES, False)
_wide_part, _wide_part_row = spread_tile(ROWS, VECTORS, LANES, True), spread_tile(1, VECTORS, LANES, True)
_vector, _vector_row = spread_tile(ROWS, 1, LANES, False), spread_tile(1, 1, LANES, False)
_part, _part_row = spread_tile(ROWS, 1, LANES, True), spread_tile(1, 1, LANES, True)
_half, _half_row = spread_tile(ROWS, 1, HALF_LANES, True), spread_tile(1, 1, HALF_LANES, True)
# For fewer entries than rows.
FEW_ROWS = 4
_wide_few = spread_tile(FEW_ROWS, VECTORS, LANES, False)
# Features of a panel: see `matrix_of` in `xpnn.backends.engines.numba.convolution_layouts`.
PANEL = 2 * LANES
# Terms of a block, whose part of a panel stays in the first cache while all tiles use it.
TERMS = 128
# A tile that fetches the next block of a panel meanwhile.
_wide_fetching = spread_tile(ROWS, VECTORS, LANES, False, TERMS * PANEL)


# If the last tile would reach beyond the end, it begins earlier and computes some sums a second time.
@helper
def _add_products(
    x: Any,
    a: Any,
    n: Any,
    b: Any,
    terms: Any,
    m: Any,
    pitch: Any,
    start: Any,
    start_step: Any,
    out: Any,
    step: Any,
    features: Any,
    relu: Any,
) -> None:
    """The formula for ``n`` entries of ``a`` and ``terms`` of ``b``; arrays are given by their addresses.

    ``pitch``, ``start_step`` and ``step`` are the distances of the rows of ``m``, ``start`` and ``out``; a pitch of 0
    means that ``m`` is in panels. Terms are added up block by block in their order; sums of all tiles wait in memory
    in between, which changes no bit.
    """
    block = TERMS if terms >= 2 * TERMS else terms
    waiting = np.empty(_WIDE * (n + ROWS) if block < terms else 0, np.float32)
    f = 0
    while f < features:
        left = features - f
        rows = ROWS if n >= ROWS else FEW_ROWS if n >= FEW_ROWS and left >= _WIDE else 1
        right, width = m + 4 * f, pitch
        if pitch == 0:
            panel = f - f % PANEL
            right, width = m + 4 * (panel * terms + f % PANEL), min(PANEL, features - panel)
        for term in range(0, terms, block):
            count, is_last = min(block, terms - term), term + block >= terms
            for at in range(0, n, rows):
                i = min(at, n - rows)
                own, own_step = start + 4 * (f + i * start_step), start_step
                to, to_step = out + 4 * (f + i * step), step
                if term > 0:
                    own, own_step = waiting.ctypes.data + 4 * _WIDE * at, _WIDE
                if not is_last:
                    to, to_step = waiting.ctypes.data + 4 * _WIDE * at, _WIDE
                factors = right + 4 * term * width
                last = relu if is_last else 0
                # All but the last tile read this block from the cache, so the last one has time for the next.
                if pitch == 0 and not is_last and rows == ROWS and left >= _WIDE and at > 0 and at + rows >= n:
                    _wide_fetching(
                        x, a + 8 * i, b + 8 * term, count, factors, width, own, own_step, to, to_step, left, 0
                    )
                    continue
                _add_tile(
                    rows, x, a + 8 * i, b + 8 * term, count, factors, width, own, own_step, to, to_step, left, last
                )
        hold(waiting)
        f += _WIDE if left > LANES else LANES


@helper
def _add_tile(
    rows: Any,
    x: Any,
    a: Any,
    b: Any,
    terms: Any,
    m: Any,
    pitch: Any,
    start: Any,
    start_step: Any,
    out: Any,
    step: Any,
    left: Any,
    relu: Any,
) -> None:
    """One tile of `_add_products`, of the first ``_WIDE`` of the features that are ``left``."""
    if rows == ROWS:
        if left >= _WIDE:
            _wide(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        elif left > LANES:
            _wide_part(x, a, b, terms, m, pitch, start, start_step, out, step, left - LANES, relu)
        elif left == LANES:
            _vector(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        elif left > HALF_LANES:
            _part(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        else:
            _half(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
    elif rows == FEW_ROWS:
        _wide_few(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
    else:
        if left >= _WIDE:
            _wide_row(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        elif left > LANES:
            _wide_part_row(x, a, b, terms, m, pitch, start, start_step, out, step, left - LANES, relu)
        elif left == LANES:
            _vector_row(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        elif left > HALF_LANES:
            _part_row(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)
        else:
            _half_row(x, a, b, terms, m, pitch, start, start_step, out, step, left, relu)


@helper
def _reach(g: Any, axis: Any, windows: Any) -> Any:
    """Cells of the padded input that some windows read along an axis."""
    return (windows - 1) * g[STRIDE + axis] + (g[KERNEL + axis] - 1) * g[DILATION + axis] + 1


@helper
def _strip_size(g: Any, block: Any) -> Any:
    """Entries of the padded input of a block; 0 if ``x`` itself is read."""
    return block[PADDED] * block[BLOCK_SAMPLES] * block[STRIP_ROWS] * block[WIDTH] * block[DEPTH] * g[CHANNELS]


# Indices of the numbers that describe blocks: samples and rows of a block, blocks of a sample, rows of its padded
# input, the sizes of the other axes with padding, and whether a padded copy is made.
BLOCK_SAMPLES, BLOCK_ROWS, BLOCKS_OF_SAMPLE, STRIP_ROWS, WIDTH, DEPTH, PADDED = range(7)


@helper
def _block(item: Any, g: Any, block: Any) -> Any:
    """The first sample and row of a block, and how many it has."""
    sample, row = item // block[BLOCKS_OF_SAMPLE] * block[BLOCK_SAMPLES], item % block[BLOCKS_OF_SAMPLE]
    row *= block[BLOCK_ROWS]
    samples = min(block[BLOCK_SAMPLES], g[SAMPLES] - sample)
    return sample, samples, row, min(block[BLOCK_ROWS], g[OUTPUT] - row)


@helper
def _strip(x: Any, g: Any, block: Any, sample: Any, samples: Any, row: Any, rows: Any, strip: Any) -> Any:
    """The address of what the windows of a block read: in ``x``, or in ``strip``, to which it is copied."""
    first = row * g[STRIDE]
    if block[PADDED] == 0:
        return x.ctypes.data + 4 * (sample * g[SAMPLE_STEP] + first * g[SAMPLE_STEP + 1])
    high = block[STRIP_ROWS] if samples > 1 else min(block[STRIP_ROWS], _reach(g, 0, rows))
    pad_rows(x, g, sample, samples, first, high, block[WIDTH], block[DEPTH], strip)
    return strip.ctypes.data + 0


@job(
    read(1),
    read(1, "int64"),
    read(1, "int64"),
    read(1, "int64"),
    read(1, "int64"),
    read(2),
    read(1),
    INT,
    INT,
    INT,
    write(2),
)
def convolve(
    item: Any,
    x: Any,
    g: Any,
    block: Any,
    begin: Any,
    within: Any,
    m: Any,
    bias: Any,
    relu: Any,
    part: Any,
    in_panels: Any,
    out: Any,
) -> None:
    """Convolve a block of ``x`` with ``part`` columns of the matrix ``m (K*C, F)``: ``out (N*O, F)``.

    With ``in_panels`` it has the layout of `matrix_of` in `xpnn.backends.engines.numba.convolution_layouts`.
    """
    features = out.shape[1]
    parts = -(-features // part)
    sample, samples, row, rows = _block(item // parts, g, block)
    place = item % parts * part
    strip = np.empty(_strip_size(g, block), x.dtype)
    start = _strip(x, g, block, sample, samples, row, rows, strip)
    cells = g[OUTPUT + 1] * g[OUTPUT + 2]
    to = out.ctypes.data + 4 * (features * cells * (sample * g[OUTPUT] + row) + place)
    a, b, right, first = (
        begin.ctypes.data + 0,
        within.ctypes.data + 0,
        m.ctypes.data + 4 * place * (len(within) if in_panels else 1),
        bias.ctypes.data + 4 * place,
    )
    windows, count = samples * rows * cells, min(part, features - place)
    pitch = 0 if in_panels else features
    _add_products(start, a, windows, b, len(within), right, pitch, first, 0, to, features, count, relu)
    hold(strip)


@job(
    read(1),
    read(1, "int64"),
    read(1, "int64"),
    read(1, "int64"),
    read(1, "int64"),
    read(2),
    read(1),
    INT,
    INT,
    write(4),
)
def correlate(
    item: Any,
    x: Any,
    g: Any,
    block: Any,
    begin: Any,
    within: Any,
    dy: Any,
    zeros: Any,
    blocks: Any,
    part: Any,
    sums: Any,
) -> None:
    """The sum of each lane over its blocks of windows of ``x`` times ``dy (N*O, F)``: ``sums (2, L, K*C, F)``.

    An item computes ``part`` features of a lane. The sums of a block are added to those before it from one of the two
    matrices to the other; the last is the first one.
    """
    _, lanes, depth, features = sums.shape
    strip = np.empty(_strip_size(g, block), x.dtype)
    cells = g[OUTPUT + 1] * g[OUTPUT + 2]
    a, b, parts = within.ctypes.data + 0, begin.ctypes.data + 0, -(-features // part)
    lane, place = item // parts, item % parts * part
    first, last = blocks * lane // lanes, blocks * (lane + 1) // lanes
    before, before_step = zeros.ctypes.data + 0, 0
    for number in range(first, last):
        sample, samples, row, rows = _block(number, g, block)
        start = _strip(x, g, block, sample, samples, row, rows, strip)
        m = dy.ctypes.data + 4 * (features * cells * (sample * g[OUTPUT] + row) + place)
        to = sums.ctypes.data + 4 * (depth * features * ((last - 1 - number) % 2 * lanes + lane) + place)
        terms, count = samples * rows * cells, min(part, features - place)
        _add_products(start, a, depth, b, terms, m, features, before, before_step, to, features, count, 0)
        before, before_step = to, features
