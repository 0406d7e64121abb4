"""Which gradients a backward must compute: not those of frozen parameters."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class HasParameters(Protocol):
    """A layer."""

    def needs_grad(self, name: str) -> bool:
        """Whether there is a parameter of that name that is not frozen."""


class Wanted(NamedTuple):
    """Which of the gradients of a layer with an input, a weight and a bias are wanted."""

    input: bool = True
    weight: bool = True
    bias: bool = True

    @property
    def parameters(self) -> bool:
        """Whether that of any parameter is."""
        return self.weight or self.bias


def wanted_of(layer: HasParameters, input_grad: bool) -> Wanted:
    """The gradients that the backward of a layer must compute."""
    return Wanted(input_grad, layer.needs_grad("weight"), layer.needs_grad("bias"))
