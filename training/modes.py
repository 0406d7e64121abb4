"""Modes of layers during training: those that a user set to evaluation stay in it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from ..layers.core.layer import Layer


def layers_in_evaluation(model: Layer) -> list[str]:
    """Full names of the layers that stay in evaluation while a model is trained.

    These are the layers in evaluation within a model that is in training itself, such as a batch norm after ``eval()``.
    If the whole model is in evaluation, as after a use of it, there are none: all of it is trained.
    """
    return [name for name, layer in model.named_layers() if not layer.training] if model.training else []


@contextmanager
def in_training(model: Layer, evaluated: Collection[str]) -> Iterator[None]:
    """Within the ``with`` block, all layers are in training mode, except those with these full names.

    Afterwards the layers whose mode this changed have their previous mode again.
    """
    changed = set_modes(model, evaluated)
    try:
        yield
    finally:
        for layer, before in changed:
            Layer.train(layer, before)


def set_modes(model: Layer, evaluated: Collection[str]) -> list[tuple[Layer, bool]]:
    """Set layers with these full names to evaluation and the others to training; those that changed, with their mode
    before."""
    changed = []
    for name, layer in model.named_layers():
        mode = name not in evaluated
        if layer.training is not mode:
            changed.append((layer, layer.training))
            # Of this layer alone.
            Layer.train(layer, mode)
    return changed
