"""Permute: another order of the axes, ``y = permute_dims(x)``, and the inverse order for ``dx``."""

from typing import Unpack

from ...backends.memory_order import inverse
from ...common import checks
from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


class Permute(Layer):
    """Change the order of the axes after the batch: axis ``i`` of the output is axis ``axes[i - 1]`` of the input.

    ``Permute(2, 1)`` turns ``(N, C, L)`` into ``(N, L, C)``: channels of positions into a sequence for
    `MultiHeadAttention`.

    Parameters
    ----------
    *axes : int
        The numbers from 1 on, each once.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From the constructor for other numbers; from `forward` for an input with another number of axes.
    """

    def __init__(self, *axes: int, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        if not all(map(checks.is_integer, axes)) or sorted(axes) != list(range(1, len(axes) + 1)):
            raise ValueError(f"axes must be the numbers from 1 on, each once, such as 2, 1; got {checks.shown(axes)}")
        self.axes = tuple(int(axis) for axis in axes)

    def _output_shape(self, shape: Shape) -> Shape:
        if len(shape) != len(self.axes) + 1:
            raise ValueError(f"input must have {len(self.axes) + 1} axes, got shape {shape}")
        return (shape[0], *(shape[axis] for axis in self.axes))

    def _forward(self, x: Array) -> Array:
        self._output_shape(tuple(x.shape))
        self.save_for_backward(None)
        return self.backend.xp.permute_dims(x, (0, *self.axes))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return self.backend.xp.permute_dims(dy, inverse((0, *self.axes)))

    def __repr__(self) -> str:
        return f"Permute({', '.join(map(str, self.axes))})"
