"""Depthwise convolution: sums of products of each channel separately, read from the input without padding.

One formula is both a convolution and its adjoint in the weight, as in
`xpnn.backends.engines.numba.direct_convolution`::

    out[o[i], f] = bias[f] + sum over j of  x[a[i] + b[j] + f] * m[r[j], f]

In a convolution, ``i`` runs over windows and ``j`` over the cells of the kernel; in the adjoint, ``i`` runs over cells
and ``j`` over windows. Windows that reach into the padding read fewer cells. Windows that read the same cells form a
class, which is computed separately, and nothing is multiplied by the zeros of the padding: where array functions
multiply them by infinity, their result is NaN, and here it is not. The sums of a tile, some ``i`` and one vector of
channels, stay in registers while ``j`` runs.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

from ....common.types import Array
from ...contractions.windows import Windows
from .compiler import OFFSETS, READ1, READ2, WRITE2, compiled
from .direct_convolution import FUSE, VECTOR_LANES
from .window_offsets import window_classes

cgutils: Any = untyped

# Rows of a tile, sums that share a vector of ``m``: the cells of a 3x3 kernel, and those that it has at a corner.
LARGE_TILE, SMALL_TILE = 9, 4
# Most windows of a class in the weight's gradient, so that their input stays in a cache for all channels.
WINDOWS_OF_CLASS = 64


def _tile(rows: int) -> Any:
    """Instructions for the sums of ``rows`` entries of ``a`` and ``o`` and one vector of channels.

    All arguments are addresses, except for ``terms``, the number of ``j``, and ``pitch``, the row stride of ``m`` and
    ``out``.
    """
    vector, number, whole = ir.VectorType(ir.FloatType(), VECTOR_LANES), ir.FloatType(), ir.IntType(64)

    def tile(
        context: Any, x: Any, a: Any, o: Any, b: Any, r: Any, terms: Any, m: Any, bias: Any, out: Any, pitch: Any
    ) -> Any:
        return types.void(*[types.int64] * 10), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def at(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def load(place: Any) -> Any:
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)

        x, a, o, b, r, terms, m, bias, out, pitch = arguments
        x, m, bias, out = (at(address, number) for address in (x, m, bias, out))
        a, o, b, r = (at(address, whole) for address in (a, o, b, r))
        starts = [builder.gep(x, [builder.load(builder.gep(a, [ir.Constant(whole, i)]))]) for i in range(rows)]
        sums = [cgutils.alloca_once_value(builder, load(bias)) for _ in range(rows)]
        with cgutils.for_range(builder, terms) as loop:
            offset = builder.load(builder.gep(b, [loop.index]))
            row = builder.load(builder.gep(r, [loop.index]))
            right = load(builder.gep(m, [builder.mul(row, pitch)]))
            for start, total in zip(starts, sums, strict=True):
                product = builder.fmul(load(builder.gep(start, [offset])), right, flags=FUSE)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSE), total)
        for i, total in enumerate(sums):
            row = builder.load(builder.gep(o, [ir.Constant(whole, i)]))
            place = builder.gep(out, [builder.mul(row, pitch)])
            builder.store(builder.load(total), builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return intrinsic(tile)


_large, _small, _one = _tile(LARGE_TILE), _tile(SMALL_TILE), _tile(1)


# If the last tile would reach beyond the end, it begins earlier and computes some sums a second time.
@compiled(READ1, OFFSETS, OFFSETS, OFFSETS, OFFSETS, OFFSETS, OFFSETS, READ2, READ1, WRITE2)
def _products(x: Any, a: Any, o: Any, split: Any, b: Any, r: Any, parts: Any, m: Any, bias: Any, out: Any) -> None:
    features = out.shape[1]
    for part in range(len(split) - 1):
        first, last, terms = split[part], split[part + 1], parts[part + 1] - parts[part]
        offsets, lines = b.ctypes.data + 8 * parts[part], r.ctypes.data + 8 * parts[part]
        rows = LARGE_TILE if last - first >= LARGE_TILE else SMALL_TILE if last - first >= SMALL_TILE else 1
        for at in range(first, last, rows):
            i = min(at, last - rows)
            start, to = a.ctypes.data + 8 * i, o.ctypes.data + 8 * i
            for channel in range(0, features, VECTOR_LANES):
                f = 4 * min(channel, features - VECTOR_LANES)
                left, right = x.ctypes.data + f, m.ctypes.data + f
                begin, result = bias.ctypes.data + f, out.ctypes.data + f
                if rows == LARGE_TILE:
                    _large(left, start, to, offsets, lines, terms, right, begin, result, features)
                elif rows == SMALL_TILE:
                    _small(left, start, to, offsets, lines, terms, right, begin, result, features)
                else:
                    _one(left, start, to, offsets, lines, terms, right, begin, result, features)


@compiled(READ2, OFFSETS, WRITE2)
def _add_rows(rows: Any, to: Any, out: Any) -> None:
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            out[to[i], f] += rows[i, f]


def convolve_by_channel(
    x: Array,
    cells: Array,
    bias: Array,
    windows: Windows,
    before: tuple[int, ...],
    out: Array,
    adjoint: bool = False,
) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    found = window_classes(x.shape[1:], windows, before, adjoint)
    for sample, result in zip(x, out, strict=True):
        _products(sample.reshape(-1), *found, cells, bias, result)


def correlate_by_channel(x: Array, dy: Array, windows: Windows, before: tuple[int, ...], out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    found = window_classes(x.shape[1:], windows, before, most=WINDOWS_OF_CLASS)
    # One row for each cell of each class.
    rows = np.empty((len(found.cells), out.shape[1]), np.float32)
    every, zeros = np.arange(len(rows)), np.zeros(out.shape[1], np.float32)
    out[...] = 0.0
    for sample, upstream in zip(x, dy, strict=True):
        read = (sample.reshape(-1), found.within, every, found.parts, found.begin, found.windows, found.split)
        _products(*read, upstream, zeros, rows)
        _add_rows(rows, found.cells, out)
