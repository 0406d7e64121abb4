"""What each layer of a model gives for an input."""

from functools import partial
from typing import Any

from ..backends.types import Array
from ..layers.base import Layer


def layer_outputs(model: Layer, x: Array, *, containers: bool = False) -> list[tuple[str, Layer, Array]]:
    """Name, layer and output of each layer, in the order in which they compute, in evaluation mode.

    Modes are put back, and forwards are the classes' own again, afterwards.

    Parameters
    ----------
    model : Layer
    x : array ``(N, ...)``
        On the model's backend.
    containers : bool
        Whether containers are told of too; the model itself comes last then.
    """
    outputs: list[tuple[str, Layer, Array]] = []
    parts = list(model.named_layers())
    modes = [part.training for _, part in parts]
    model.eval()
    for name, part in parts:
        if containers or len(list(part.named_layers())) == 1:
            vars(part)["forward"] = partial(_recorded, outputs, name, part)
    try:
        model.forward(x)
    finally:
        for (_, part), mode in zip(parts, modes, strict=True):
            vars(part).pop("forward", None)
            Layer.train(part, mode)
    return outputs


def _recorded(outputs: list[tuple[str, Layer, Array]], name: str, layer: Layer, x: Array) -> Any:
    y = type(layer).forward(layer, x)
    outputs.append((name, layer, y[0] if isinstance(y, tuple) else y))
    return y
