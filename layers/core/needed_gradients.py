"""Which gradients a backward must compute: not those of frozen parameters."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .parameter import Parameter


class HasParameters(Protocol):
    """A layer."""

    parameters: dict[str, Parameter]

    def needs_grad(self, name: str) -> bool:
        """Whether there is a parameter of that name that is not frozen."""


class Wanted(NamedTuple):
    """Which of the gradients of a layer with an input, a weight and a bias are wanted."""

    input: bool = True
    weight: bool = True
    bias: bool = True

    @property
    def parameters(self) -> bool:
        """Whether the gradient of any parameter is wanted."""
        return self.weight or self.bias


# Without and with the gradient of the input, without and with that of a bias.
_OFTEN = tuple(tuple(Wanted(input_grad, True, bias) for bias in (False, True)) for input_grad in (False, True))


def wanted_of(layer: HasParameters, input_grad: bool) -> Wanted:
    """The gradients that the backward of a layer must compute."""
    parameters = layer.parameters
    if "weight" in parameters:
        for parameter in parameters.values():
            if not parameter._requires_grad:
                break
        else:
            # The usual case, without calls of `needs_grad`.
            return _OFTEN[input_grad]["bias" in parameters]
    return Wanted(input_grad, layer.needs_grad("weight"), layer.needs_grad("bias"))
