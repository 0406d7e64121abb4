"""Functions of single entries of dense arrays, each in one pass over memory in the order in which the first lies.

`unary` and `binary` make a job of a formula in vectors (`xpnn.backends.engines.numba.vector_math`) and two numbers, its
options. `apply` binds the arrays to it, whatever their memory layouts.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous
from .jobs import INT, NUMBER, Job, job, read, write
from .lanes import Code, vectorised
from .pool import perform
from .vector_math import Vector, where

# Entries that an item computes, of a formula of few operations and of one with elementary functions.
ITEM_ENTRIES, COSTLY_ITEM_ENTRIES = 1 << 16, 1 << 13
#: A formula of one or two vectors and two numbers.
Formula: TypeAlias = Callable[..., Vector]
# Vectors of a formula: a short one only where there are few entries, since each length is compiled.
_LENGTHS = (16, 1)


def unary(formula: Formula) -> Job:
    """The job of ``y = formula(x, a, b)``."""

    @vectorised
    def compute(code: Code, x: Any, a: Any, b: Any, first: Any, count: Any, y: Any) -> None:
        for lanes, c in code.over(count, _LENGTHS):
            at = code.add(first, c)
            options = (Vector(lanes, lanes.spread(number)) for number in (a, b))
            lanes.store(formula(Vector(lanes, lanes.load(x, at)), *options).value, y, at)

    def work(item: Any, x: Any, y: Any, a: Any, b: Any, per: Any) -> None:
        compute(x, a, b, item * per, min(per, x.shape[0] - item * per), y)

    return job(read(1), write(1), NUMBER, NUMBER, INT)(named(work, formula))


def binary(formula: Formula) -> Job:
    """The job of ``z = formula(x, y, a, b)``."""

    @vectorised
    def compute(code: Code, x: Any, y: Any, a: Any, b: Any, first: Any, count: Any, z: Any) -> None:
        for lanes, c in code.over(count, _LENGTHS):
            at = code.add(first, c)
            options = (Vector(lanes, lanes.spread(number)) for number in (a, b))
            given = (Vector(lanes, lanes.load(array, at)) for array in (x, y))
            lanes.store(formula(*given, *options).value, z, at)

    def work(item: Any, x: Any, y: Any, z: Any, a: Any, b: Any, per: Any) -> None:
        compute(x, y, a, b, item * per, min(per, x.shape[0] - item * per), z)

    return job(read(1), read(1), write(1), NUMBER, NUMBER, INT)(named(work, formula))


def named(work: Any, formula: Any) -> Any:
    """``work`` with the formula's name, file and line, by which compiled code is cached."""
    code = formula.__code__
    work.__code__ = work.__code__.replace(
        co_filename=code.co_filename, co_firstlineno=code.co_firstlineno, co_name=code.co_name
    )
    work.__name__ = work.__qualname__ = formula.__name__
    work.__module__, work.__doc__ = formula.__module__, formula.__doc__
    return work


def apply(job: Job, *arrays: Array, like: int = 0, options: tuple[float, ...] = (), entries: int = ITEM_ENTRIES) -> Any:
    """The job's result for arrays of one shape, in the memory order of the one at index ``like``."""
    order, flat = flat_views(arrays, like)
    shape = arrays[like].shape
    result = empty(shape if order is None else tuple(shape[axis] for axis in order), arrays[like].dtype)
    numbers = (*options, 0.0, 0.0)[:2]
    size = flat[0].size
    perform(job.bind(-(-size // entries), *flat, result.reshape(-1), *numbers, entries))
    return result if order is None else result.transpose(np.argsort(order))


def flat_views(arrays: tuple[Array, ...], like: int) -> tuple[Any, list[Array]]:
    """The arrays as vectors in the memory order of one of them, and its axes in that order; None for C order."""
    if all(array.flags.c_contiguous and array.flags.aligned for array in arrays):
        return None, [array.reshape(-1) for array in arrays]
    order = np.argsort([-abs(step) for step in arrays[like].strides], kind="stable")
    views = (contiguous(array.transpose(order)) for array in arrays)
    return order, [view.reshape(-1) for view in views]


def _relu(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(x <= 0.0, 0.0, x)


def _relu_backward(dy: Vector, y: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(y > 0.0, dy, where(y <= 0.0, 0.0, y))


def _sum(x: Vector, y: Vector, _a: Vector, _b: Vector) -> Vector:
    return x + y


def _rectified_sum(x: Vector, y: Vector, a: Vector, b: Vector) -> Vector:
    return _relu(x + y, a, b)


class Elementwise:
    """A job, and the argument whose memory order its result has."""

    def __init__(self, job: Job, like: int = 0) -> None:
        self.job, self.like = job, like

    def __call__(self, *arrays: Array) -> Array:
        """The result for arrays of one shape."""
        result: Array = apply(self.job, *arrays, like=self.like)
        return result


OPERATIONS = {
    "relu": Elementwise(unary(_relu)),
    "relu_backward": Elementwise(binary(_relu_backward), like=1),
    "add": Elementwise(binary(_sum)),
    "add_relu": Elementwise(binary(_rectified_sum)),
}


def prepare(problem: str, dtype: str) -> Elementwise | None:
    """The operation of that name."""
    return OPERATIONS[problem] if dtype in ("float32", "float64") else None
