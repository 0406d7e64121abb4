"""Elementwise operations of exact numerics, on float32 arrays as they are stored, or on float64 ones.

ReLU and its gradient select numbers, so a stored result needs no conversion. A sum of two float32 numbers is the same
whether float64 rounds it first or not, because float64 has more than twice as many bits and two. An engine computes the
same bits in one pass.
"""

from typing import Any

from ...common.types import Array, dtype_name
from ..backend import SMALLEST_STORED
from ..operations import Operations


class ExactElementwise(Operations):
    """Operations of single entries."""

    #: Those of the library's own namespace.
    raw: Operations

    def relu(self, x: Array) -> Array:
        """ReLU; magnitudes below 2**-125 in float32 count as 0."""
        if dtype_name(x.dtype) != "float32":
            return self.raw.relu(x)
        compiled = self._compiled("relu")
        if compiled is not None:
            return compiled(x)
        return self.raw.select(self.xp.logical_not(x < SMALLEST_STORED), x)

    def relu_in_place(self, x: Array) -> Array:
        """`relu` of an array that nothing else refers to; the result may be in its memory."""
        compiled = self._compiled("relu") if dtype_name(x.dtype) == "float32" else None
        return self.relu(x) if compiled is None else compiled(x, out=x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        """The gradient of `relu`; magnitudes below 2**-125 in float32 count as 0."""
        if not dtype_name(dy.dtype) == dtype_name(y.dtype) == "float32":
            return self.raw.relu_backward(dy, y)
        compiled = self._compiled("relu_backward")
        return self._flushed(self.raw.relu_backward(dy, self._flushed(y))) if compiled is None else compiled(dy, y)

    def add(self, x: Array, y: Array, relu: bool = False) -> Array:
        """``x + y``, or `relu` of it; float32 numbers as they are stored."""
        if not dtype_name(x.dtype) == dtype_name(y.dtype) == "float32":
            return super().add(x, y, relu)
        compiled = self._compiled("add_relu" if relu else "add") if x.shape == y.shape else None
        if compiled is not None:
            return compiled(x, y)
        total = self._flushed(self._flushed(x) + self._flushed(y))
        return self.raw.relu(total) if relu else total

    def _compiled(self, name: str) -> Any:
        """An engine's operation of float32 arrays; None if there is none."""
        return self.raw.prepare("exact elementwise", name, "float32")

    def _flushed(self, x: Array) -> Array:
        """float32 as it is stored: with +0 for magnitudes below 2**-125 and for -0."""
        return self.raw.select(self.xp.logical_not(self.xp.abs(x) < SMALLEST_STORED), x)
