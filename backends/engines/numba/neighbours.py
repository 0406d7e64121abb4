"""Direct convolution with few features: ``t`` neighbouring outputs of a row as one window with ``t F`` features.

A vector of features is mostly empty if there are few. The windows of ``t`` outputs together read ``k + (t - 1) s``
cells of a row, and the matrix becomes ``t`` copies of the weight side by side, each shifted by one stride, with zeros
around them: with 6 features and 5 cells, ``t = 2`` takes 0.6 of the instructions. The zeros are multiplied too, so that
an infinity or NaN in the input makes all ``t`` outputs NaN.
"""

from dataclasses import replace
from math import prod
from typing import Any

from .convolution_sizes import Sizes
from .jobs import INT, job, read, write
from .memory import add_run, clear_run, copy_run
from .register_tiles import HALF_LANES, LANES

# Multiply-adds below which making the matrix takes longer than it saves.
MIN_MULTIPLY_ADDS = 500_000
MOST_NEIGHBOURS = 8


def neighbours(sizes: Sizes) -> int:
    """The best ``t`` for a convolution, a divisor of the width of its output; 1 if there is little to gain."""
    w = sizes.windows
    if sizes.features > HALF_LANES or w.dilation[-1] > 1 or sizes.multiply_adds < MIN_MULTIPLY_ADDS:
        return 1

    def instructions(t: int) -> float:
        return -(-t * sizes.features // LANES) * (w.kernel[-1] + (t - 1) * w.stride[-1]) / t

    most = min(MOST_NEIGHBOURS, w.count[-1])
    best = min((t for t in range(1, most + 1) if w.count[-1] % t == 0), key=instructions)
    return best if instructions(best) < 0.8 * instructions(1) else 1


def joined(sizes: Sizes, t: int) -> Sizes:
    """The convolution whose windows are those of ``t`` neighbouring outputs."""
    w = sizes.windows
    windows = replace(
        w,
        kernel=(*w.kernel[:-1], w.kernel[-1] + (t - 1) * w.stride[-1]),
        stride=(*w.stride[:-1], t * w.stride[-1]),
        count=(*w.count[:-1], w.count[-1] // t),
    )
    return replace(sizes, windows=windows, features=t * sizes.features)


def rows_of_kernel(sizes: Sizes) -> int:
    """Number of rows of the kernel along the last axis."""
    return prod(sizes.windows.kernel[:-1])


@job(read(2), read(1), INT, INT, INT, write(2))
def spread_matrix(item: Any, matrix: Any, bias: Any, rows: Any, shift: Any, t: Any, out: Any) -> None:
    """Copy ``matrix (R*k*C, F)`` and ``bias`` to ``out (R*k'*C + 1, t*F)``; ``shift`` is the stride times ``C``."""
    number, size, features = out.dtype.type(0), out.itemsize, matrix.shape[1]
    old, new = matrix.shape[0] // rows, out.shape[0] // rows
    clear_run(out.ctypes.data + 0, out.shape[0] * out.shape[1], number)
    for copy in range(t):
        for row in range(rows):
            for i in range(old):
                source = matrix.ctypes.data + size * (row * old + i) * features
                to = (row * new + i + copy * shift) * out.shape[1] + copy * features
                copy_run(out.ctypes.data + size * to, source, features, number)
        last = (out.shape[0] - 1) * out.shape[1] + copy * features
        copy_run(out.ctypes.data + size * last, bias.ctypes.data + 0, features, number)


@job(read(2), INT, INT, INT, write(2))
def gather_matrix(item: Any, matrix: Any, rows: Any, shift: Any, t: Any, out: Any) -> None:
    """The adjoint of `spread_matrix`, without the bias: ``matrix (R*k'*C, t*F)`` to ``out (R*k*C, F)``."""
    number, size, features = out.dtype.type(0), out.itemsize, out.shape[1]
    old, new = out.shape[0] // rows, matrix.shape[0] // rows
    clear_run(out.ctypes.data + 0, out.shape[0] * features, number)
    for copy in range(t):
        for row in range(rows):
            for i in range(old):
                source = (row * new + i + copy * shift) * matrix.shape[1] + copy * features
                to = out.ctypes.data + size * (row * old + i) * features
                add_run(to, matrix.ctypes.data + size * source, features, number)
