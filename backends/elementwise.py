"""Element-wise operations that a backend may compute faster than a few array functions do.

Each is written here in functions of the standard. A backend overrides what its library computes faster: NumPy in parts
that stay in a cache (`xpnn.backends.cpu.elementwise`), CuPy in one kernel (`xpnn.backends.cuda.operations`).
"""

from collections.abc import Callable, Sequence
from math import inf
from operator import add
from typing import Any

from array_api_compat import device

from ..common.types import Array
from .execution.blocks import concat_all
from .execution.execution import Execution

# Entries of an array of zeros and ones in `count_pairs`; the number of its rows must be exact in float32.
PAIR_ENTRIES = 1 << 22


class Elementwise(Execution):
    """Element-wise functions, masks, and reading and writing at an index."""

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        """``function(x, *others)`` of arrays of one shape, entry by entry; the result must have x's dtype."""
        return function(x, *others)

    def update(self, function: Callable[..., None], *arrays: Array) -> None:
        """``function(*arrays)``, which writes into arrays of one shape, entry by entry; it may be called with parts."""
        function(*arrays)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays joined along an axis, counted from the front."""
        return concat_all(arrays, axis, self.xp)

    def relu(self, x: Array) -> Array:
        """ReLU, ``max(x, 0)``; NaN stays, -0 becomes 0."""
        return self.xp.where(x <= 0.0, self.xp.zeros((), dtype=x.dtype, device=device(x)), x)

    def relu_in_place(self, x: Array) -> Array:
        """`relu` of an array that nothing else refers to; the result may be in its memory."""
        return self.relu(x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        """The gradient of `relu`: ``dy`` where ``y > 0``, 0 where ``y <= 0``, and NaN where ``y`` is NaN."""
        return self.xp.where(y > 0.0, dy, self.select(self.xp.logical_not(y <= 0.0), y))

    def add(self, x: Array, y: Array, relu: bool = False) -> Array:
        """``x + y`` of arrays of one shape and dtype; with ``relu`` `relu` of it."""
        total = self.elementwise(add, x, y)
        return self.relu(total) if relu else total

    def select(self, mask: Array, x: Array) -> Array:
        """``x`` where the mask, broadcast to it, is true, else 0; unlike a product with the mask, also for NaN."""
        return self.xp.where(mask, x, self.xp.zeros((), dtype=x.dtype, device=device(x)))

    def clamp(self, x: Array, low: Any = None, high: Any = None) -> Array:
        """``x`` limited to ``[low, high]``, each a number, an array or None; NaN stays."""
        x = x if low is None else self.xp.maximum(x, low)
        return x if high is None else self.xp.minimum(x, high)

    def multiply_unless_zero(self, factor: Array, x: Array) -> Array:
        """``factor * x`` of two arrays of one shape, and 0 where the factor is 0, even if ``x`` is infinite or NaN."""
        return factor * self.xp.where(factor == 0.0, self.xp.zeros((), dtype=x.dtype, device=device(x)), x)

    def subtract_largest(self, x: Array, largest: Array) -> Array:
        """``x - largest``, broadcast to the shape of ``x``; 0 where both are infinity."""
        infinite = x == inf
        return self.xp.where(infinite, 0.0, self.select(self.xp.logical_not(infinite), x) - largest)

    def pick(self, x: Array, index: Array) -> Array:
        """``x (N, C, ...)`` at ``index (N, 1, ...)`` along axis 1."""
        return self.xp.take_along_axis(x, index, axis=1)

    def add_at(self, x: Array, index: Array, value: Array | float) -> Array:
        """``x (N, C, ...)`` plus ``value`` at ``index (N, 1, ...)`` along axis 1; ``x`` may be overwritten.

        The value is a number or an array that is broadcast to the index.
        """
        xp = self.xp
        classes = xp.arange(x.shape[1], dtype=index.dtype, device=device(x))
        chosen = xp.reshape(classes, (1, -1, *(1,) * (x.ndim - 2))) == index
        return x + xp.astype(chosen, x.dtype) * value

    def count_pairs(self, rows: Array, columns: Array, n: int) -> Array:
        """How often each pair of two integer arrays of one shape occurs, ``(n, n)``, int64; pairs outside of it don't.

        Here by products of zeros and ones, exact in any order, in parts of about 16 MB.
        """
        xp = self.xp
        classes = xp.arange(n, dtype=rows.dtype, device=device(rows))
        rows, columns = xp.reshape(rows, (-1, 1)), xp.reshape(xp.astype(columns, rows.dtype), (-1, 1))
        total = xp.zeros((n, n), dtype=xp.int64, device=device(rows))
        count, step = rows.shape[0], max(1, PAIR_ENTRIES // n)
        for start in range(0, count, step):
            some = slice(start, min(start + step, count))
            left, right = (xp.astype(part[some, :] == classes, xp.float32) for part in (rows, columns))
            total = total + xp.astype(xp.matmul(xp.permute_dims(left, (1, 0)), right), xp.int64)
        return total
