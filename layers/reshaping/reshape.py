"""Reshape: give each sample another shape, ``y = reshape(x)``, ``dx = reshape(dy)``."""

from math import prod
from typing import Unpack

from ...common import checks
from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


class Reshape(Layer):
    """``(N, ...)`` to ``(N, *shape)``, in row-major order.

    Parameters
    ----------
    *shape : int
        Of a sample; one size may be -1, which is then computed from the others.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From the constructor for sizes out of range; from `forward` for an input with another number of values.
    """

    def __init__(self, *shape: int, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        if not all(checks.is_integer(n) and (n >= 1 or n == -1) for n in shape) or shape.count(-1) > 1:
            raise ValueError(
                f"shape must be the sizes of a sample, integers >= 1 and at most one -1, got {checks.shown(shape)}"
            )
        self.shape = tuple(int(n) for n in shape)

    def _output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ValueError("the input must have a batch axis, got a 0-d array")
        size, known = prod(shape[1:]), prod(n for n in self.shape if n != -1)
        if size % known if -1 in self.shape else size != known:
            raise ValueError(f"a sample of shape {shape[1:]} has {size} values, which {self.shape} does not fit")
        return (shape[0], *(size // known if n == -1 else n for n in self.shape))

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return self.backend.xp.reshape(x, self._output_shape(tuple(x.shape)))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        return self.backend.xp.reshape(dy, shape)

    def __repr__(self) -> str:
        return f"Reshape({', '.join(map(str, self.shape))})"
