"""Depthwise convolution: sums of products of each channel by itself, read from the input without padding.

One sum is both a convolution and its adjoint in the weight, as in `xpnn.backends.engines.numba.products`::

    out[o[i], f] = bias[f] + sum over j of  x[a[i] + b[j] + f] * m[r[j], f]

In a convolution ``i`` runs over windows and ``j`` over the cells of the kernel, in the adjoint it is the other way
round. Windows that reach beyond the input read fewer cells: those that read the same cells make a class, which is a sum
of its own, and nothing is multiplied by the zeros of the padding: infinity stays infinity there, where array functions
make NaN of it. A tile of some ``i`` and one vector of channels stays in registers while ``j`` runs.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

from ....common.types import Array
from ...contractions.windows import Windows
from .compiler import PLACES, READ1, READ2, WRITE2, compiled
from .direct_convolution import FUSED, LANES
from .window_offsets import classes

cgutils: Any = untyped

# Sums that share a vector of ``m``: the cells of a usual kernel, or those at an edge and in a corner.
MANY, SOME = 9, 4
# Windows whose products are added up before the next vector of channels: what they read stays in a cache.
WINDOWS = 64


def _tile(rows: int) -> Any:
    """Sums for ``rows`` entries of ``a`` and ``o``, and a vector of channels.

    All arguments are addresses but ``terms``, the number of ``j``, and ``pitch``, from a row of ``m`` or ``out`` to the
    next.
    """
    vector, number, whole = ir.VectorType(ir.FloatType(), LANES), ir.FloatType(), ir.IntType(64)

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
                product = builder.fmul(load(builder.gep(start, [offset])), right, flags=FUSED)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)
        for i, total in enumerate(sums):
            row = builder.load(builder.gep(o, [ir.Constant(whole, i)]))
            place = builder.gep(out, [builder.mul(row, pitch)])
            builder.store(builder.load(total), builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return intrinsic(tile)


_many, _some, _one = _tile(MANY), _tile(SOME), _tile(1)


# Where the last tile would reach beyond the end it begins earlier, and computes some sums once more.
@compiled(READ1, PLACES, PLACES, PLACES, PLACES, PLACES, PLACES, READ2, READ1, WRITE2)
def _products(x: Any, a: Any, o: Any, split: Any, b: Any, r: Any, parts: Any, m: Any, bias: Any, out: Any) -> None:
    features = out.shape[1]
    for part in range(len(split) - 1):
        first, last, terms = split[part], split[part + 1], parts[part + 1] - parts[part]
        offsets, lines = b.ctypes.data + 8 * parts[part], r.ctypes.data + 8 * parts[part]
        rows = MANY if last - first >= MANY else SOME if last - first >= SOME else 1
        for at in range(first, last, rows):
            i = min(at, last - rows)
            start, to = a.ctypes.data + 8 * i, o.ctypes.data + 8 * i
            for beside in range(0, features, LANES):
                f = 4 * min(beside, features - LANES)
                left, right = x.ctypes.data + f, m.ctypes.data + f
                begin, result = bias.ctypes.data + f, out.ctypes.data + f
                if rows == MANY:
                    _many(left, start, to, offsets, lines, terms, right, begin, result, features)
                elif rows == SOME:
                    _some(left, start, to, offsets, lines, terms, right, begin, result, features)
                else:
                    _one(left, start, to, offsets, lines, terms, right, begin, result, features)


@compiled(READ2, PLACES, WRITE2)
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
    found = classes(x.shape[1:], windows, before, adjoint)
    for sample, result in zip(x, out, strict=True):
        _products(sample.reshape(-1), *found, cells, bias, result)


def correlate_by_channel(x: Array, dy: Array, windows: Windows, before: tuple[int, ...], out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    found = classes(x.shape[1:], windows, before, most=WINDOWS)
    # A row for each cell of each class.
    rows = np.empty((len(found.cells), out.shape[1]), np.float32)
    every, zeros = np.arange(len(rows)), np.zeros(out.shape[1], np.float32)
    out[...] = 0.0
    for sample, upstream in zip(x, dy, strict=True):
        read = (sample.reshape(-1), found.within, every, found.parts, found.begin, found.windows, found.split)
        _products(*read, upstream, zeros, rows)
        _add_rows(rows, found.cells, out)
