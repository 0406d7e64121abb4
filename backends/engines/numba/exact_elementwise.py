"""Conversions between stored and computed numbers of exact numerics, and functions of stored numbers, in one pass each.

Stored are float32 numbers, in which magnitudes below 2**-125, and -0, are +0; computed with are float64 numbers. A
function reads stored numbers, computes in float64 and rounds once, as the array functions do in three steps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .elementwise import ITEM_ENTRIES, flat_views, named
from .exact_lanes import ExactLanes, over
from .jobs import INT, Job, Kind, job, read, write
from .lanes import Code, vectorised
from .pool import perform

# Entries of a vector.
_LENGTHS = (16, 1)


def _job(formula: Callable[..., Any], given: tuple[Kind, ...], result: Kind) -> Job:
    """The job that writes ``formula(lanes, *vectors)``."""
    if len(given) == 1:

        @vectorised
        def compute_one(code: Code, x: Any, first: Any, count: Any, y: Any) -> None:
            for lanes, c in over(code, count, _LENGTHS):
                at = code.add(first, c)
                lanes.write(formula(lanes, lanes.read(x, at)), y, at)

        def one(item: Any, x: Any, y: Any, per: Any) -> None:
            compute_one(x, item * per, min(per, x.shape[0] - item * per), y)

        return job(*given, result, INT, contract=False)(named(one, formula))

    @vectorised
    def compute_two(code: Code, x: Any, y: Any, first: Any, count: Any, z: Any) -> None:
        for lanes, c in over(code, count, _LENGTHS):
            at = code.add(first, c)
            lanes.write(formula(lanes, lanes.read(x, at), lanes.read(y, at)), z, at)

    def two(item: Any, x: Any, y: Any, z: Any, per: Any) -> None:
        compute_two(x, y, item * per, min(per, x.shape[0] - item * per), z)

    return job(*given, result, INT, contract=False)(named(two, formula))


# Reading and writing convert. Three functions, because a job is cached by the name of its formula.
def _widened(lanes: ExactLanes, x: Any) -> Any:
    return x


def _narrowed(lanes: ExactLanes, x: Any) -> Any:
    return x


def _stored(lanes: ExactLanes, x: Any) -> Any:
    return x


def _relu(lanes: ExactLanes, x: Any) -> Any:
    return lanes.rectified(x)


def _relu_backward(lanes: ExactLanes, dy: Any, y: Any) -> Any:
    return lanes.gated(dy, y)


def _sum(lanes: ExactLanes, x: Any, y: Any) -> Any:
    return lanes.add(x, y)


def _rectified_sum(lanes: ExactLanes, x: Any, y: Any) -> Any:
    return lanes.rectified(lanes.add(x, y))


_STORED, _STORED_RESULT = read(1, "float32"), write(1, "float32")


class ExactElementwise:
    """A job with a result of a dtype, in the memory order of one argument."""

    def __init__(self, job: Job, dtype: str = "float32", like: int = 0) -> None:
        self.job, self.dtype, self.like = job, dtype, like

    def __call__(self, *arrays: Array, out: Array | None = None) -> Array:
        """The result for arrays of one shape; ``out`` may be the first of them."""
        order, flat = flat_views(arrays, self.like)
        size, shape = flat[0].size, arrays[self.like].shape
        if out is not None and order is None and out.flags.c_contiguous:
            perform(self.job.bind(-(-size // ITEM_ENTRIES), *flat, out.reshape(-1), ITEM_ENTRIES, dtype=self.dtype))
            return out
        result = empty(shape if order is None else tuple([shape[axis] for axis in order]), self.dtype)
        perform(self.job.bind(-(-size // ITEM_ENTRIES), *flat, result.reshape(-1), ITEM_ENTRIES, dtype=self.dtype))
        return result if order is None else result.transpose(np.argsort(order))


OPERATIONS = {
    "widen": ExactElementwise(_job(_widened, (_STORED,), write(1, "float64")), "float64"),
    "narrow": ExactElementwise(_job(_narrowed, (read(1, "float64"),), _STORED_RESULT)),
    "store": ExactElementwise(_job(_stored, (_STORED,), _STORED_RESULT)),
    "relu": ExactElementwise(_job(_relu, (_STORED,), _STORED_RESULT)),
    "relu_backward": ExactElementwise(_job(_relu_backward, (_STORED, _STORED), _STORED_RESULT), like=1),
    "add": ExactElementwise(_job(_sum, (_STORED, _STORED), _STORED_RESULT)),
    "add_relu": ExactElementwise(_job(_rectified_sum, (_STORED, _STORED), _STORED_RESULT)),
}


def prepare(problem: str, dtype: str) -> ExactElementwise | None:
    """The operation of that name."""
    return OPERATIONS[problem] if dtype == "float32" else None
