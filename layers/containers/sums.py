"""The sum of arrays of one shape, as containers and joins compute it."""

from __future__ import annotations

from collections.abc import Sequence

from ...backends import Backend, operations_of
from ...backends.kept_calls import kept_calls
from ...backends.operations import Operations
from ...common.types import Array


@kept_calls(2)
def _added(x: Array, y: Array, relu: bool, ops: Operations) -> Array:
    """The sum of two arrays of one shape, or its ReLU."""
    return ops.add(x, y, relu=relu)


def sum_of(arrays: Sequence[Array], b: Backend, relu: bool = False) -> Array:
    """The sum of at least one array of one shape in their order, or its ReLU; of one array that itself."""
    ops = operations_of(b.xp)
    with b.context():
        if len(arrays) == 2:
            x, y = map(b.plain, arrays)
            return b.down(_added(x, y, relu, ops))
        total = b.up(arrays[0])
        for i, array in enumerate(arrays[1:], start=2):
            total = _added(total, b.up(array), relu and i == len(arrays), ops)
        return b.down(total)
