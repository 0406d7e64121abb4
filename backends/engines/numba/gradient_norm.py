"""The norm of many gradients as one vector, and the gradients scaled so that it is at most some number.

Squares are added up in float64, where those of float32 can't overflow.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from ....common.types import Array
from ...memory_order import axes_in_memory, inverse
from ...recording.calls import empty
from .dot import wide_dot
from .jobs import NUMBER, bind_phases, job, read, write
from .packing import addresses_of
from .pieces import cut, has_no_gaps
from .pool import perform
from .vectors import vector_at

# Added to the norm that divides, as in PyTorch.
SMALLEST = 1e-6
# Pieces, the first piece of each item, addresses of gradients and results, sums, the norm and the factor, the limit.
_KINDS = (read(2, "int64"), read(1, "int64"), read(2, "int64"), write(1, "float64"), write(1), NUMBER)


@job(*_KINDS)
def add_squares(item: Any, pieces: Any, firsts: Any, table: Any, parts: Any, norm: Any, limit: Any) -> None:
    """The sum of the squares of an item's entries."""
    total = 0.0
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        x = vector_at(table[0, row], first, size, limit)
        total += wide_dot(x.ctypes.data, x.ctypes.data, size, limit)
    parts[item] = total


@job(*_KINDS)
def find_factor(item: Any, pieces: Any, firsts: Any, table: Any, parts: Any, norm: Any, limit: Any) -> None:
    """The norm, and the factor ``min(1, limit / (norm + 1e-6))``; NaN for NaN."""
    total = 0.0
    for i in range(parts.shape[0]):
        total += parts[i]
    norm[0] = sqrt(total)
    factor = limit / (norm[0] + norm.dtype.type(SMALLEST))
    norm[1] = norm.dtype.type(1) if factor >= 1 else factor


@job(*_KINDS)
def scale(item: Any, pieces: Any, firsts: Any, table: Any, parts: Any, norm: Any, limit: Any) -> None:
    """An item's entries times the factor."""
    factor = norm[1]
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        x, y = vector_at(table[0, row], first, size, limit), vector_at(table[1, row], first, size, limit)
        for i in range(size):
            y[i] = x[i] * factor


class GradientNorm:
    """Gradients of float32, scaled by their norm."""

    def accepts(self, gradients: Sequence[Array]) -> bool:
        """Whether all are of float32 and have no gaps in memory."""
        return all(x.dtype == np.float32 and has_no_gaps(x) for x in gradients)

    def __call__(self, gradients: Sequence[Array], limit: float) -> tuple[Array, list[Array]]:
        """The norm of all gradients, 0-d, and new gradients with a norm of at most ``limit``."""
        # Of parameters without axes they may be scalars of NumPy.
        gradients = [x if isinstance(x, np.ndarray) else np.asarray(x) for x in gradients]
        scaled = list(map(_empty_like, gradients))
        pieces, firsts = cut(tuple([x.size for x in gradients]))
        items, table = len(firsts) - 1, addresses_of([*gradients, *scaled]).reshape(2, -1)
        norm, parts = empty((2,), np.float32), empty((items,), np.float64)
        phases = [(add_squares, items), (find_factor, 1), (scale, items)]
        arguments = (pieces, firsts, table, parts, norm, limit)
        perform(bind_phases(phases, *arguments, dtype="float32", addressed=[*gradients, *scaled]))
        return norm[0, ...], scaled


def _empty_like(x: Array) -> Array:
    """An array like ``x``, whose axes have the same order in memory."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    order = axes_in_memory(x.strides)
    return empty(tuple([x.shape[axis] for axis in order]), x.dtype).transpose(inverse(order))


def prepare(problem: None, dtype: str) -> GradientNorm | None:
    """For float32 only: squares of float64 overflow."""
    return GradientNorm() if dtype == "float32" else None
