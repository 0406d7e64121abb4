"""Layers that rearrange and compute nothing."""

from math import prod

from ..backends.types import Array
from .base import Layer


class Flatten(Layer):
    """``(N, ...)`` to ``(N, product of the rest)``, in row-major order; the gradient takes the way back."""

    def _forward(self, x: Array) -> Array:
        if x.ndim < 1:
            raise ValueError("the input needs a batch axis, got a 0-d array")
        self._save(tuple(x.shape))
        return self.backend.xp.reshape(x, (x.shape[0], prod(x.shape[1:])))

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (shape,) = self._saved
        return self.backend.xp.reshape(dy, shape)
