"""Average pooling over one or two spatial axes: a loop over the cells of each window, all channels at once."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compiler import INT, READ2, READ4, WRITE4, compiled, contiguous
from .max_pool import as_plane, pool_sizes


@compiled(READ4, INT, INT, INT, INT, INT, INT, INT, INT, READ2, WRITE4)
def _means(
    x: Any, kh: Any, kw: Any, sh: Any, sw: Any, dh: Any, dw: Any, above: Any, left: Any, divisor: Any, out: Any
) -> None:
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    for n in range(out.shape[0]):
        for p in range(out.shape[1]):
            for q in range(out.shape[2]):
                out[n, p, q, :] = np.float32(0.0)
                for i in range(kh):
                    r = p * sh - above + i * dh
                    if r < 0 or r >= rows:
                        continue
                    for j in range(kw):
                        s = q * sw - left + j * dw
                        if s < 0 or s >= columns:
                            continue
                        for c in range(channels):
                            out[n, p, q, c] += x[n, r, s, c]
                by = divisor[p, q]
                for c in range(channels):
                    out[n, p, q, c] /= by


@compiled(READ4, INT, INT, INT, INT, INT, INT, INT, INT, READ2, WRITE4)
def _spread(
    dy: Any, kh: Any, kw: Any, sh: Any, sw: Any, dh: Any, dw: Any, above: Any, left: Any, divisor: Any, dx: Any
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
                by = divisor[p, q]
                for i in range(kh):
                    r = p * sh - above + i * dh
                    if r < 0 or r >= rows:
                        continue
                    for j in range(kw):
                        s = q * sw - left + j * dw
                        if s < 0 or s >= columns:
                            continue
                        for c in range(channels):
                            dx[n, r, s, c] += dy[n, p, q, c] / by
        for r in range(zeroed, rows):
            dx[n, r, :, :] = np.float32(0.0)


def means(x: Array, windows: Windows, padding: PadWidths, divisor: Array, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _means(as_plane(contiguous(x)), *pool_sizes(windows, padding), _divisors(divisor, windows), as_plane(out))


def spread_means(dy: Array, windows: Windows, padding: PadWidths, divisor: Array, dx: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _spread(as_plane(contiguous(dy)), *pool_sizes(windows, padding), _divisors(divisor, windows), as_plane(dx))


def _divisors(divisor: Array, windows: Windows) -> Array:
    """A divisor for each window, ``(P, Q)``."""
    shape = windows.count if len(windows.count) == 2 else (1, *windows.count)
    return np.ascontiguousarray(np.broadcast_to(divisor if divisor.ndim == 0 else divisor.reshape(shape), shape))
