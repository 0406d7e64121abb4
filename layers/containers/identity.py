"""The identity."""

from typing import Any

from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape


class Identity(Layer):
    """``y = x``, ``dx = dy``: a branch of `Parallel` without layers, or a placeholder for a layer."""

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    def _flow(self, flow: Any, path: str, inputs: tuple[str, ...]) -> str:
        return inputs[0]

    def _forward(self, x: Array) -> Array:
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy
