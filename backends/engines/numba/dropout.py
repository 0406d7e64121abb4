"""Dropout: values scaled where a mask is true, 0 elsewhere, in one pass."""

from math import prod
from typing import Any

from ....common.types import Array
from ...recording.calls import empty
from .jobs import INT, NUMBER, job, read, write
from .pool import perform

# Entries of an item: some 10 microseconds.
ITEM_ENTRIES = 1 << 16


@job(read(1), read(1, "int8"), write(1), NUMBER, INT)
def scale_kept(item: Any, x: Any, keep: Any, y: Any, factor: Any, chunk: Any) -> None:
    """``x factor`` where ``keep`` is not 0, else 0."""
    first, end = item * chunk, min((item + 1) * chunk, x.shape[0])
    values, mask, to = x[first:end], keep[first:end], y[first:end]
    zero = factor - factor
    for i in range(to.shape[0]):
        scaled = values[i] * factor
        to[i] = scaled if mask[i] != 0 else zero


class Dropout:
    """Dropout of arrays of one shape."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self.items = max(1, -(-prod(shape) // ITEM_ENTRIES))

    def accepts(self, x: Array, keep: Array) -> bool:
        """Whether the mask has the shape of ``x``, and both are C-contiguous."""
        return bool(keep.shape == self.shape and x.flags.c_contiguous and keep.flags.c_contiguous)

    def __call__(self, x: Array, keep: Array, factor: float) -> Array:
        """``x factor`` where ``keep`` is true, 0 elsewhere, even where ``x`` is infinite or NaN."""
        y = empty(self.shape, self.dtype)
        arrays = (x.reshape(-1), keep.reshape(-1).view("int8"), y.reshape(-1))
        perform(scale_kept.bind(self.items, *arrays, factor, ITEM_ENTRIES, dtype=self.dtype))
        return y


def prepare(problem: tuple[int, ...], dtype: str) -> Dropout:
    """For a shape."""
    return Dropout(problem, dtype)
