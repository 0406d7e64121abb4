"""The net of an estimator: from a name, a factory or a layer, or one that suits the data."""

import copy
from collections.abc import Callable
from math import prod
from typing import TypeAlias

from ...backends import Backend
from ...common import checks
from ...layers.activations import ReLU
from ...layers.containers import Sequential
from ...layers.core.layer import Layer
from ...layers.dense import Dense
from ...layers.models import BUILDERS, lenet
from ...layers.models.lenet import SMALLEST
from ...layers.reshaping.flatten import Flatten

Model: TypeAlias = str | Callable[[tuple[int, ...], int], Layer] | Layer | None

#: Features of the hidden layers of the default net. At the default learning rate a wide net needs few epochs.
HIDDEN = (256, 128)


def build_net(model: Model, shape: tuple[int, ...], outputs: int, backend: Backend, seed: int) -> Layer:
    """A new net on a backend.

    Parameters
    ----------
    model : str, callable, Layer or None
        As for `NetClassifier`.
    shape : tuple of int
        Of one sample, such as ``(F,)`` or ``(C, H, W)``.
    outputs : int
        Outputs of a sample.
    backend : Backend
    seed : int
        Determines the weights, but for those that a layer has already.

    Raises
    ------
    TypeError, ValueError
        For a model of another kind, an unknown name, or a net that does not accept the samples or has another number
        of outputs.
    """
    net = _net(model, shape, outputs, backend, seed)
    try:
        found = tuple(net.output_shape((1, *shape)))
    except ValueError as error:
        raise ValueError(f"model does not accept samples of shape {shape}: {error}") from error
    if found != (1, outputs):
        raise ValueError(
            f"model must return {outputs} numbers for each sample of shape {shape}, (N, {outputs}), got "
            f"{('N', *found[1:])}".replace("'", "")
        )
    return net


def _net(model: Model, shape: tuple[int, ...], outputs: int, backend: Backend, seed: int) -> Layer:
    if model is None:
        return _default_net(shape, outputs, backend, seed)
    if isinstance(model, str):
        builder = BUILDERS[checks.choice("model", model, tuple(BUILDERS))]
        if len(shape) != 3 and model != "mlp":
            raise ValueError(f"model {model!r} is for images (N, C, H, W), got samples of shape {shape}")
        image = (shape[0], *shape[1:]) if len(shape) == 3 else (prod(shape), 1, 1)
        return builder(image, outputs, backend=backend, seed=seed)
    if isinstance(model, Layer):
        net = copy.deepcopy(model)
        net.release()
        net.zero_grad()
    elif callable(model):
        net = checks.instance("the result of model", model(shape, outputs), Layer)
    else:
        raise TypeError(
            f"model must be a name, a function (shape, outputs) -> Layer, a Layer or None, got {checks.shown(model)}"
        )
    # A container gives it the seed; the move also takes along layers with a backend of their own.
    return Sequential(("net", net), backend=backend, seed=seed).to(backend)


def _default_net(shape: tuple[int, ...], outputs: int, backend: Backend, seed: int) -> Layer:
    if len(shape) == 3 and min(shape[1:]) >= SMALLEST:
        return lenet((shape[0], shape[1], shape[2]), outputs, backend=backend, seed=seed)
    first, second = HIDDEN
    layers = (Dense(prod(shape), first), ReLU(), Dense(first, second), ReLU(), Dense(second, outputs))
    return Sequential(*(() if len(shape) == 1 else (Flatten(),)), *layers, backend=backend, seed=seed)
