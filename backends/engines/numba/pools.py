"""Max-pooling over one or two spatial axes: each window's cells one after the other, all channels at once."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compiler import INT, READ4, READ_BYTES4, WRITE4, WRITE_BYTES4, compiled, in_one_piece


@compiled(READ4, INT, INT, INT, INT, INT, INT, INT, INT, WRITE4, WRITE_BYTES4)
def _maxima(
    x: Any, kh: Any, kw: Any, sh: Any, sw: Any, dh: Any, dw: Any, above: Any, left: Any, best: Any, cell: Any
) -> None:
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    for n in range(best.shape[0]):
        for p in range(best.shape[1]):
            for q in range(best.shape[2]):
                begun = False
                for i in range(kh):
                    r = p * sh - above + i * dh
                    if r < 0 or r >= rows:
                        continue
                    for j in range(kw):
                        s = q * sw - left + j * dw
                        if s < 0 or s >= columns:
                            continue
                        k = np.int8(i * kw + j)
                        if not begun:
                            begun = True
                            for c in range(channels):
                                best[n, p, q, c] = x[n, r, s, c]
                                cell[n, p, q, c] = k
                            continue
                        for c in range(channels):
                            a, b = x[n, r, s, c], best[n, p, q, c]
                            # Not a <= b, so that NaN wins, but no second NaN after the first.
                            wins = (not a <= b) & (b == b)
                            best[n, p, q, c] = a if wins else b
                            cell[n, p, q, c] = k if wins else cell[n, p, q, c]


@compiled(READ4, READ_BYTES4, INT, INT, INT, INT, INT, INT, INT, INT, WRITE4)
def _scatter(
    dy: Any, cell: Any, kh: Any, kw: Any, sh: Any, sw: Any, dh: Any, dw: Any, above: Any, left: Any, dx: Any
) -> None:
    rows, columns, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    for n in range(dx.shape[0]):
        clean = 0
        for p in range(dy.shape[1]):
            # Zeros are written just before the sums, while a cache holds them.
            last = min(rows, max(clean, p * sh - above + (kh - 1) * dh + 1))
            for r in range(clean, last):
                dx[n, r, :, :] = np.float32(0.0)
            clean = last
            for q in range(dy.shape[2]):
                for i in range(kh):
                    r = p * sh - above + i * dh
                    if r < 0 or r >= rows:
                        continue
                    for j in range(kw):
                        s = q * sw - left + j * dw
                        if s < 0 or s >= columns:
                            continue
                        k = np.int8(i * kw + j)
                        for c in range(channels):
                            share = dy[n, p, q, c] if cell[n, p, q, c] == k else np.float32(0.0)
                            dx[n, r, s, c] += share
        for r in range(clean, rows):
            dx[n, r, :, :] = np.float32(0.0)


def max_cells(x: Array, windows: Windows, padding: PadWidths, best: Array, cell: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _maxima(plane(in_one_piece(x)), *numbers(windows, padding), plane(best), plane(cell))


def scatter_maxima(dy: Array, cell: Array, windows: Windows, padding: PadWidths, dx: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _scatter(plane(in_one_piece(dy)), plane(in_one_piece(cell)), *numbers(windows, padding), plane(dx))


def plane(x: Array) -> Array:
    """``(n, *S, C)`` as ``(n, R, W, C)``: one spatial axis is one row."""
    return x if x.ndim == 4 else x.reshape(x.shape[0], 1, *x.shape[1:])


def numbers(windows: Windows, padding: PadWidths) -> tuple[int, ...]:
    """Kernel, stride, dilation and the padding before, each for rows and columns."""
    before = tuple(pair[0] for pair in padding)
    alone = ((1,), (1,), (1,), (0,)) if len(before) == 1 else ((),) * 4
    fields = (windows.kernel, windows.stride, windows.dilation, before)
    return tuple(number for one, field in zip(alone, fields, strict=True) for number in (*one, *field))
