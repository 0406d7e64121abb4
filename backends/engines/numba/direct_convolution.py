"""Direct convolution: sums of products, without columns.

One formula is both a convolution and its adjoint in the weight::

    out[i, f] = bias[f] + sum over j of  x[a[i] + b[j]] * m[j, f]

In a convolution, ``a`` are the offsets of windows in ``x``, ``b`` those of cells and channels in a window, and ``m`` is
the weight; in its adjoint, ``a`` and ``b`` are swapped and ``m`` is ``dy``. The sums of a tile, some ``i`` and one
vector of features, stay in registers while ``j`` runs. The tile is written in LLVM instructions, since the compiler
does not keep an array of sums in registers.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD architectures", 2018.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

from ....common.types import Array
from ...contractions.windows import Windows
from .compiler import INT, OFFSETS, READ1, READ2, READ3, WRITE2, WRITE3, compiled
from .window_offsets import window_offsets

cgutils: Any = untyped

# Floats of a vector of 512 bits, and of half a vector for few features. Shorter registers hold a vector in parts.
VECTOR_LANES, HALF_LANES = 16, 8
# Rows of a tile: sums that share a vector of ``m``.
TILE_ROWS = 8
# Flags with which LLVM may fuse a product and a sum.
FUSE = ("contract",)


def _tile(rows: int, lanes: int) -> Any:
    """Instructions for the sums of ``rows`` entries of ``a`` and ``lanes`` features.

    All arguments are addresses, except for ``terms``, the number of ``j``, and ``pitch`` and ``step``, the row strides
    of ``m`` and ``out``.
    """
    vector, number, whole = ir.VectorType(ir.FloatType(), lanes), ir.FloatType(), ir.IntType(64)

    def tile(
        context: Any, x: Any, a: Any, b: Any, terms: Any, m: Any, pitch: Any, bias: Any, out: Any, step: Any
    ) -> Any:
        return types.void(*[types.int64] * 9), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def at(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def load(place: Any) -> Any:
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)

        def spread(place: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, builder.load(place), ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(first, undefined, zeros)

        x, a, b, terms, m, pitch, bias, out, step = arguments
        x, m, bias, out = (at(address, number) for address in (x, m, bias, out))
        a, b = at(a, whole), at(b, whole)
        starts = [builder.gep(x, [builder.load(builder.gep(a, [ir.Constant(whole, i)]))]) for i in range(rows)]
        sums = [cgutils.alloca_once_value(builder, load(bias)) for _ in range(rows)]
        with cgutils.for_range(builder, terms) as loop:
            offset = builder.load(builder.gep(b, [loop.index]))
            right = load(builder.gep(m, [builder.mul(loop.index, pitch)]))
            for start, total in zip(starts, sums, strict=True):
                place = builder.gep(start, [offset])
                product = builder.fmul(spread(place), right, flags=FUSE)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSE), total)
        for i, total in enumerate(sums):
            place = builder.gep(out, [builder.mul(ir.Constant(whole, i), step)])
            builder.store(builder.load(total), builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return intrinsic(tile)


_vector_tile, _vector_row = _tile(TILE_ROWS, VECTOR_LANES), _tile(1, VECTOR_LANES)
_half_vector_tile, _half_vector_row = _tile(TILE_ROWS, HALF_LANES), _tile(1, HALF_LANES)


# If the last tile would reach beyond the end, it begins earlier and computes some sums a second time.
@compiled(READ1, OFFSETS, OFFSETS, READ2, READ1, WRITE2)
def _sums_of_products(x: Any, a: Any, b: Any, m: Any, bias: Any, out: Any) -> None:
    """``out[i, f] = bias[f] + sum_j x[a[i] + b[j]] * m[j, f]``.

    ``m`` and ``bias`` have `width` features, and ``out`` at most as many.
    """
    n, features = out.shape
    pitch, rows = m.shape[1], TILE_ROWS if len(a) >= TILE_ROWS else 1
    narrow = np.empty((TILE_ROWS, pitch), np.float32)
    for first_feature in range(0, features, VECTOR_LANES):
        f = max(0, min(first_feature, features - VECTOR_LANES))
        right, first = m.ctypes.data + 4 * f, bias.ctypes.data + 4 * f
        for at in range(0, n, rows):
            i = min(at, n - rows)
            start, to, step = a.ctypes.data + 8 * i, out.ctypes.data + 4 * (i * features + f), features
            if features < pitch:
                to, step = narrow.ctypes.data + 0, pitch
            if pitch == HALF_LANES:
                if rows == TILE_ROWS:
                    _half_vector_tile(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
                else:
                    _half_vector_row(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            elif rows == TILE_ROWS:
                _vector_tile(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            else:
                _vector_row(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            if features < pitch:
                for k in range(rows):
                    for feature in range(features):
                        out[i + k, feature] = narrow[k, feature]


@compiled(READ2, WRITE2)
def widen(rows: Any, out: Any) -> None:
    """Copy ``rows (n, F)`` to the wider ``out``, followed by zeros."""
    n, features = rows.shape
    for i in range(n):
        for f in range(out.shape[1]):
            out[i, f] = rows[i, f] if f < features else np.float32(0.0)


@compiled(READ3, INT, INT, WRITE3)
def pad(x: Any, above: Any, left: Any, out: Any) -> None:
    """Copy ``x (n, R, W)`` to ``out (n, R', W')`` and surround it with zeros."""
    for n in range(out.shape[0]):
        for r in range(out.shape[1]):
            if r < above or r >= above + x.shape[1]:
                out[n, r, :] = 0.0
                continue
            out[n, r, :left] = 0.0
            out[n, r, left + x.shape[2] :] = 0.0
            for i in range(x.shape[2]):
                out[n, r, left + i] = x[n, r - above, i]


def width(features: int) -> int:
    """See `xpnn.backends.engines.numba.Kernels`."""
    return HALF_LANES if features <= HALF_LANES else max(features, VECTOR_LANES)


def convolve(strip: Array, matrix: Array, bias: Array, windows: Windows, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    begin, within = window_offsets(strip.shape, windows)
    _sums_of_products(strip.reshape(-1), begin, within, matrix, bias, out)


def correlate(strip: Array, dy: Array, zeros: Array, windows: Windows, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    begin, within = window_offsets(strip.shape, windows)
    _sums_of_products(strip.reshape(-1), within, begin, dy, zeros, out)
