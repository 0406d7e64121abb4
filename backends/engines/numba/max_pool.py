"""Max-pooling over one or two spatial axes: a loop over the cells of each window, all channels at once."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compiler import INT, READ4, READ_BYTES4, WRITE4, WRITE_BYTES4, compiled, contiguous


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
                            # not (a <= b) is true for a NaN in a; after a first NaN the index stays.
                            wins = (not a <= b) & (b == b)
                            best[n, p, q, c] = a if wins else b
                            cell[n, p, q, c] = k if wins else cell[n, p, q, c]


@compiled(READ4, READ_BYTES4, INT, INT, INT, INT, INT, INT, INT, INT, WRITE4)
def _scatter(
    dy: Any, cell: Any, kh: Any, kw: Any, sh: Any, sw: Any, dh: Any, dw: Any, above: Any, left: Any, dx: Any
) -> None:
    rows, columns, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    for n in range(dx.shape[0]):
        zeroed = 0
        for p in range(dy.shape[1]):
            # Zeros are written just before the sums, so that they are still in a cache.
            last = min(rows, max(zeroed, p * sh - above + (kh - 1) * dh + 1))
            for r in range(zeroed, last):
                dx[n, r, :, :] = np.float32(0.0)
            zeroed = last
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
        for r in range(zeroed, rows):
            dx[n, r, :, :] = np.float32(0.0)


def max_cells(x: Array, windows: Windows, padding: PadWidths, best: Array, cell: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _maxima(as_plane(contiguous(x)), *pool_sizes(windows, padding), as_plane(best), as_plane(cell))


def scatter_maxima(dy: Array, cell: Array, windows: Windows, padding: PadWidths, dx: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _scatter(as_plane(contiguous(dy)), as_plane(contiguous(cell)), *pool_sizes(windows, padding), as_plane(dx))


def as_plane(x: Array) -> Array:
    """``(n, *S, C)`` as ``(n, R, W, C)``; with one spatial axis, ``R`` is 1."""
    return x if x.ndim == 4 else x.reshape(x.shape[0], 1, *x.shape[1:])


def pool_sizes(windows: Windows, padding: PadWidths) -> tuple[int, ...]:
    """Kernel, stride, dilation and padding before, each for rows and columns."""
    before = tuple(pair[0] for pair in padding)
    missing = ((1,), (1,), (1,), (0,)) if len(before) == 1 else ((),) * 4
    fields = (windows.kernel, windows.stride, windows.dilation, before)
    return tuple(number for one, field in zip(missing, fields, strict=True) for number in (*one, *field))
