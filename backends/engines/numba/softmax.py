"""Softmax and its logarithm over rows, and their gradients: `xpnn.layers.activations.softmax` has the formulas."""

from math import inf
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous
from .jobs import INT, job, read, write
from .lanes import Code, Lanes, vectorised
from .pool import perform
from .row_lanes import LENGTH, Running, added, larger, parts
from .vector_math import Vector, exp, where

# Entries that an item computes.
ITEM_ENTRIES = 1 << 13


@vectorised
def _exponentials(code: Code, x: Any, begin: Any, count: Any, y: Any, total: Any, is_log: Any) -> None:
    """``y = exp(x - max)``, or ``x - max`` with ``is_log``, and the sum of the exponentials to ``total[0]``."""
    largest = Running(code, -inf, larger)
    for part in parts(code, count):
        largest.include(part.load(x, begin, -inf))
    most = largest.all()
    for keeps_logarithm in code.either(is_log):
        sums = Running(code, 0.0, added)
        for part in parts(code, count):
            value = part.load(x, begin, -inf)
            # The difference of infinities would be NaN.
            below = where(value < inf, value - most, where(value.is_number(), 0.0, value))
            e = exp(below)
            sums.include(e)
            part.store(below if keeps_logarithm else e, y, begin)
        code.builder.store(sums.number(), total)


@vectorised
def _finish(code: Code, y: Any, begin: Any, count: Any, by: Any, is_log: Any) -> None:
    """``y * by``, or ``y - by`` with ``is_log``, in place."""
    other = Vector(Lanes(code, LENGTH), Lanes(code, LENGTH).spread(by))
    for keeps_logarithm in code.either(is_log):
        for part in parts(code, count):
            value = part.load(y, begin)
            part.store(value - other if keeps_logarithm else value * other, y, begin)


@vectorised
def _gradient(code: Code, dy: Any, y: Any, begin: Any, count: Any, dx: Any, is_log: Any) -> None:
    """``y (dy - sum(dy y))``, or ``dy - exp(y) sum(dy)`` with ``is_log``."""
    for of_logarithm in code.either(is_log):
        sums = Running(code, 0.0, added)
        for part in parts(code, count):
            d = part.load(dy, begin)
            sums.include(d if of_logarithm else d * part.load(y, begin))
        total = sums.all()
        for part in parts(code, count):
            d, p = part.load(dy, begin), part.load(y, begin)
            part.store(d - exp(p) * total if of_logarithm else p * (d - total), dx, begin)


@job(read(2), write(2), INT, INT)
def _softmax(item: Any, x: Any, y: Any, is_log: Any, per: Any) -> None:
    count, total = x.shape[1], np.empty(1, x.dtype)
    for row in range(item * per, min((item + 1) * per, x.shape[0])):
        _exponentials(x, row * count, count, y, total, is_log)
        # The sum is at least 1, the exponential of the largest.
        by = np.log(total[0]) if is_log != 0 else x.dtype.type(1) / total[0]
        _finish(y, row * count, count, by, is_log)


@job(read(2), read(2), write(2), INT, INT)
def _softmax_backward(item: Any, dy: Any, y: Any, dx: Any, is_log: Any, per: Any) -> None:
    count = y.shape[1]
    for row in range(item * per, min((item + 1) * per, y.shape[0])):
        _gradient(dy, y, row * count, count, dx, is_log)


class Softmax:
    """Softmax, or its logarithm, along the last axis."""

    def __init__(self, is_log: bool) -> None:
        self.is_log = is_log

    def forward(self, x: Array) -> Array:
        """Of ``x (..., D)``."""
        y, (items, per, shape) = empty(x.shape, x.dtype), _rows(x)
        perform(_softmax.bind(items, contiguous(x).reshape(shape), y.reshape(shape), self.is_log, per))
        return y

    def backward(self, dy: Array, y: Array) -> Array:
        """``dx`` for ``dy`` and the result, ``(..., D)``."""
        dx, (items, per, shape) = empty(y.shape, y.dtype), _rows(y)
        given = (contiguous(dy).reshape(shape), contiguous(y).reshape(shape))
        perform(_softmax_backward.bind(items, *given, dx.reshape(shape), self.is_log, per))
        return dx


def _rows(x: Array) -> tuple[int, int, tuple[int, int]]:
    """Items, rows of an item, and the shape as rows."""
    count = x.shape[-1]
    rows, per = x.size // count, max(1, ITEM_ENTRIES // count)
    return -(-rows // per), per, (rows, count)


def prepare(problem: bool, dtype: str) -> Softmax | None:
    """Softmax, or its logarithm if the problem is True."""
    return Softmax(problem) if dtype in ("float32", "float64") else None
