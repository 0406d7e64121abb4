"""Flatten: join axes, ``y = reshape(x)``, ``dx = reshape(dy)``."""

from math import prod
from typing import Any, ClassVar, Unpack

from ...common import checks
from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


class Flatten(Layer):
    """Join axes in row-major order, by default all but the first: ``(N, ...)`` to ``(N, product)``.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to join; negative numbers count from the end.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward` for an input without these axes. An input ``(N,)`` is accepted and becomes ``(N, 1)``.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("start_dim", 1), ("end_dim", -1))

    def __init__(self, start_dim: int = 1, end_dim: int = -1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.start_dim = checks.integer("start_dim", start_dim)
        self.end_dim = checks.integer("end_dim", end_dim)

    def _output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ValueError("the input must have a batch axis, got a 0-d array")
        start, end = (axis + len(shape) if axis < 0 else axis for axis in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < len(shape) and (start, end) != (len(shape), len(shape) - 1):
            raise ValueError(f"an input of shape {shape} has no axes from {self.start_dim} to {self.end_dim}")
        return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return self.backend.xp.reshape(x, self._output_shape(tuple(x.shape)))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self.saved
        return self.backend.xp.reshape(dy, shape)
