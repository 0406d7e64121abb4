"""Direct convolution: sums of products without columns.

One sum is both a convolution and its adjoint in the weight::

    out[i, f] = bias[f] + sum over j of  x[a[i] + b[j]] * m[j, f]

In a convolution ``a`` says where windows begin, ``b`` where in a window the cells (and channels) lie, and ``m`` is the
weight; in its adjoint the two change places and ``m`` is ``dy``. A tile of some ``i`` and one vector of features stays
in registers while ``j`` runs: that is written in the compiler's own instructions, for it keeps no array of sums there.

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
from .compiler import INT, PLACES, READ1, READ2, READ3, WRITE2, WRITE3, compiled
from .window_offsets import places

cgutils: Any = untyped

# Features of a vector, 512 bits, and of half of one where that is enough. A processor with shorter vectors takes two.
LANES, FEW = 16, 8
# Sums that share a vector of ``m``.
ROWS = 8
FUSED = ("contract",)


def _tile(rows: int, lanes: int) -> Any:
    """Sums for ``rows`` entries of ``a`` and ``lanes`` features.

    All arguments are addresses but ``terms``, the number of ``j``, and ``pitch`` and ``step``, from a row of ``m``
    and of ``out`` to the next.
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
            nothing = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(nothing, builder.load(place), ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(first, nothing, zeros)

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
                product = builder.fmul(spread(place), right, flags=FUSED)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)
        for i, total in enumerate(sums):
            place = builder.gep(out, [builder.mul(ir.Constant(whole, i), step)])
            builder.store(builder.load(total), builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return intrinsic(tile)


_many, _one = _tile(ROWS, LANES), _tile(1, LANES)
_many_few, _one_few = _tile(ROWS, FEW), _tile(1, FEW)


# Where the last tile would reach beyond the end it begins earlier, and computes some sums once more.
@compiled(READ1, PLACES, PLACES, READ2, READ1, WRITE2)
def products(x: Any, a: Any, b: Any, m: Any, bias: Any, out: Any) -> None:
    """``out[i, f] = bias[f] + sum_j x[a[i] + b[j]] * m[j, f]``.

    ``m`` and ``bias`` have `width` features.
    """
    n, features = out.shape
    pitch, rows = m.shape[1], ROWS if len(a) >= ROWS else 1
    narrow = np.empty((ROWS, pitch), np.float32)
    for beside in range(0, features, LANES):
        f = max(0, min(beside, features - LANES))
        right, first = m.ctypes.data + 4 * f, bias.ctypes.data + 4 * f
        for at in range(0, n, rows):
            i = min(at, n - rows)
            start, to, step = a.ctypes.data + 8 * i, out.ctypes.data + 4 * (i * features + f), features
            if features < pitch:
                to, step = narrow.ctypes.data + 0, pitch
            if pitch == FEW:
                if rows == ROWS:
                    _many_few(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
                else:
                    _one_few(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            elif rows == ROWS:
                _many(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            else:
                _one(x.ctypes.data, start, b.ctypes.data, len(b), right, pitch, first, to, step)
            if features < pitch:
                for k in range(rows):
                    for feature in range(features):
                        out[i + k, feature] = narrow[k, feature]


@compiled(READ2, WRITE2)
def widen(rows: Any, out: Any) -> None:
    """``rows (n, F)`` to ``out (n, more than F)``, with zeros after them."""
    n, features = rows.shape
    for i in range(n):
        for f in range(out.shape[1]):
            out[i, f] = rows[i, f] if f < features else np.float32(0.0)


@compiled(READ3, INT, INT, WRITE3)
def pad(x: Any, above: Any, left: Any, out: Any) -> None:
    """``x (n, R, W)`` within zeros: ``out (n, R', W')``."""
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
    return FEW if features <= FEW else max(features, LANES)


def convolve(strip: Array, matrix: Array, bias: Array, windows: Windows, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    begin, within = places(strip.shape, windows)
    products(strip.reshape(-1), begin, within, matrix, bias, out)


def correlate(strip: Array, dy: Array, zeros: Array, windows: Windows, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    begin, within = places(strip.shape, windows)
    products(strip.reshape(-1), within, begin, dy, zeros, out)
