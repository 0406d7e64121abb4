"""Normalisation of rows by their own mean and variance, and its gradients; a row stays in the L1 cache.

`xpnn.layers.normalisation.norm` has the formulas. A mean has two parts, ``near + correction``: if all values are equal,
the rounding error of a mean is divided by the root of ``eps``. The variance is that of differences from ``near``.
"""

from typing import Any, NamedTuple

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .bound import Bound
from .compiler import contiguous
from .jobs import INT, NUMBER, job, read, write
from .lanes import Code, Lanes, vectorised
from .pool import perform
from .row_lanes import LENGTH, Running, added, parts
from .vector_math import Vector

# Entries that an item computes.
ITEM_ENTRIES = 1 << 14
# Columns of the gradients of weight and bias that an item adds up.
COLUMNS = 256
# Columns of the statistics of a row.
NEAR, CORRECTION, INVERSE_STD = range(3)


def _spread(code: Code, value: Any) -> Vector:
    lanes = Lanes(code, LENGTH)
    return Vector(lanes, lanes.spread(value))


@vectorised
def _sum(code: Code, x: Any, begin: Any, count: Any, near: Any, sums: Any, at: Any) -> None:
    """The sums of ``t = x - near`` and of ``t^2`` over a row, to ``sums[at]`` and ``sums[at + 1]``."""
    centre, total, squares = _spread(code, near), Running(code, 0.0, added), Running(code, 0.0, added)
    for part in parts(code, count):
        t = part.load(x, begin, centre) - centre
        total.include(t)
        squares.include(t * t)
    for k, each in enumerate((total, squares)):
        code.builder.store(each.number(), code.builder.gep(sums, [code.add(at, k)]))


def _normalised(x: Vector, near: Vector, correction: Vector, inverse_std: Vector) -> Vector:
    return (x - near - correction) * inverse_std


@vectorised
def _normalise(
    code: Code, x: Any, begin: Any, count: Any, near: Any, correction: Any, inverse_std: Any, weight: Any, bias: Any,
    y: Any,
) -> None:  # fmt: skip
    statistics = [_spread(code, number) for number in (near, correction, inverse_std)]
    for part in parts(code, count):
        value = _normalised(part.load(x, begin), *statistics)
        part.store(value * part.load(weight, code.word(0)) + part.load(bias, code.word(0)), y, begin)


@vectorised
def _gradient(
    code: Code, dy: Any, x: Any, begin: Any, count: Any, near: Any, correction: Any, inverse_std: Any, share: Any,
    weight: Any, partial: Any, to: Any, dx: Any,
) -> None:  # fmt: skip
    """``dx`` of a row, ``share`` being 1 over its length; the row's part of dweight and dbias is added to sums."""
    statistics = [_spread(code, number) for number in (near, correction, inverse_std)]
    total, products = Running(code, 0.0, added), Running(code, 0.0, added)
    for part in parts(code, count):
        # Of what a row is filled up with, the upstream gradient is 0.
        d, value = part.load(dy, begin), _normalised(part.load(x, begin), *statistics)
        g = d * part.load(weight, code.word(0))
        total.include(g)
        products.include(g * value)
        for k, term in enumerate((d * value, d)):
            place = code.add(to, code.times(count, k))
            part.store(part.load(partial, place) + term, partial, place)
    mean, slope = (each.all() * _spread(code, share) for each in (total, products))
    for part in parts(code, count):
        value = _normalised(part.load(x, begin), *statistics)
        g = part.load(dy, begin) * part.load(weight, code.word(0))
        part.store((g - mean - value * slope) * statistics[INVERSE_STD], dx, begin)


@job(read(2), read(1), read(1), NUMBER, write(2), write(2), INT)
def _forward(item: Any, x: Any, weight: Any, bias: Any, eps: Any, found: Any, y: Any, per: Any) -> None:
    number, count = x.dtype.type, x.shape[1]
    for row in range(item * per, min((item + 1) * per, x.shape[0])):
        at = row * count
        _sum(x, at, count, number(0), found, row * 3)
        near = found[row, 0] / number(count)
        _sum(x, at, count, near, found, row * 3)
        total, squares = np.float64(found[row, 0]), np.float64(found[row, 1])
        var = (squares - total * total / count) / count
        # NaN stays; a variance that overflowed makes the row NaN.
        var = number(0.0 if var < 0.0 else var)
        found[row, NEAR], found[row, CORRECTION] = near, number(total / count)
        found[row, INVERSE_STD] = number(np.nan) if var == number(np.inf) else number(1) / np.sqrt(var + eps)
        _normalise(x, at, count, near, found[row, CORRECTION], found[row, INVERSE_STD], weight, bias, y)


@job(read(2), read(2), read(1), read(2), write(3), write(2), INT)
def _backward(item: Any, dy: Any, x: Any, weight: Any, found: Any, partial: Any, dx: Any, per: Any) -> None:
    number, count = x.dtype.type, x.shape[1]
    partial[item] = number(0)
    share = number(1.0 / count)
    for row in range(item * per, min((item + 1) * per, x.shape[0])):
        near, correction, inverse = found[row, NEAR], found[row, CORRECTION], found[row, INVERSE_STD]
        to = item * 2 * count
        _gradient(dy, x, row * count, count, near, correction, inverse, share, weight, partial, to, dx)


@job(read(3), write(2))
def _add_items(item: Any, partial: Any, total: Any) -> None:
    """The sums of the items' parts."""
    number = partial.dtype.type
    first = item * COLUMNS
    size = min(COLUMNS, total.shape[1] - first)
    sums = np.zeros(size)
    for k in range(2):
        sums[:] = 0.0
        for i in range(partial.shape[0]):
            for c in range(size):
                sums[c] += partial[i, k, first + c]
        for c in range(size):
            total[k, first + c] = number(sums[c])


class Statistics(NamedTuple):
    """An input as rows, ``(R, D)``, and for each the two parts of the mean and the inverse deviation, ``(R, 3)``."""

    rows: Array
    found: Array


class LayerNorm:
    """Normalisation of ``rows`` rows of ``count`` entries."""

    def __init__(self, rows: int, count: int, dtype: str) -> None:
        self.shape, self.dtype = (rows, count), np.dtype(dtype)
        self.per = max(1, ITEM_ENTRIES // count)
        self.items = -(-rows // self.per)
        self._ones, self._zeros = np.ones(count, dtype), np.zeros(count, dtype)

    def forward(
        self, x: Array, weight: Array | None, bias: Array | None, given: None, eps: float
    ) -> tuple[Array, Statistics]:
        """``y`` and the statistics of ``x``."""
        rows, y, found = (
            contiguous(x).reshape(self.shape),
            empty(x.shape, self.dtype),
            empty((self.shape[0], 3), self.dtype),
        )
        affine = (self._vector(weight, self._ones), self._vector(bias, self._zeros))
        perform(_forward.bind(self.items, rows, *affine, eps, found, y.reshape(self.shape), self.per))
        return y, Statistics(rows, found)

    def backward(
        self, dy: Array, known: Statistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)``; the gradients of weight and bias have one axis."""
        rows, dx = contiguous(dy).reshape(self.shape), empty(dy.shape, self.dtype)
        partial, total = empty((self.items, 2, self.shape[1]), self.dtype), empty((2, self.shape[1]), self.dtype)
        given = (rows, known.rows, self._vector(weight, self._ones), known.found)
        jobs = [
            _backward.bind(self.items, *given, partial, dx.reshape(self.shape), self.per),
            _add_items.bind(-(-self.shape[1] // COLUMNS), partial, total),
        ]
        perform(Bound.join(jobs))
        return dx if input_grad else None, total[0], total[1]

    def _vector(self, x: Array | None, otherwise: Array) -> Array:
        return otherwise if x is None else contiguous(x).reshape(-1)


def prepare(problem: tuple[int, int], dtype: str) -> LayerNorm | None:
    """For a number of rows and of their entries.

    None for one entry, whose gradient is a difference of equal numbers: compiled code would not round one of them.
    """
    rows, count = problem
    return LayerNorm(rows, count, dtype) if dtype in ("float32", "float64") and rows and count > 1 else None
