"""A trained model at work: figures over data, and outputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from ..backends import checks, use_backend
from ..backends.inputs import host_data
from ..layers.base import Layer
from ..layers.losses import CrossEntropy, Loss
from .agreement import require_predictions, require_targets
from .data import DataLoader
from .tally import Tally

Data: TypeAlias = DataLoader | tuple[Any, Any]


def evaluate(model: Layer, data: Data, *, loss: Loss | None = None, batch_size: int = 256) -> dict[str, float]:
    """Mean ``loss`` and, for classes, ``accuracy`` of a model in evaluation mode; its mode is put back.

    Raises
    ------
    ValueError
        For targets or predictions of which the loss says nothing, as from `fit`.
    """
    batch_size = checks.integer("batch_size", batch_size, 1)
    is_usual_loss = loss is None
    loss = CrossEntropy() if loss is None else loss
    loader = as_loader(data, batch_size, shuffle=False)
    require_targets(loss, loader, is_usual_loss)
    tally = Tally(model.backend)
    with use_backend(model.backend), in_mode(model, False):
        for x, target in loader.batches(model.backend):
            prediction = model.forward(x)
            if not tally.samples:
                require_predictions(loss, prediction, loader)
            tally.add(loss.forward(prediction, target), prediction, target)
    return tally.read()


def predict(model: Layer, x: Any, *, batch_size: int = 256) -> np.ndarray[Any, Any]:
    """A model's outputs on the host for host inputs ``x (N, ...)``, or those of a loader; in evaluation mode."""
    b, batch_size = model.backend, checks.integer("batch_size", batch_size, 1)
    outputs = []
    if isinstance(x, DataLoader):
        with in_mode(model, False):
            return np.concatenate([b.to_numpy(model.forward(images)) for images, _ in x.batches(b)])
    x = host_data(x, "x", convert=True)
    if not x.ndim:
        raise ValueError("x must have samples along axis 0, got a 0-d array")
    with in_mode(model, False):
        for start in range(0, max(len(x), 1), batch_size):
            part = b.asarray(x[start : start + batch_size], b.dtype if x.dtype.kind == "f" else None)
            outputs.append(b.to_numpy(model.forward(part)))
    return np.concatenate(outputs)


@contextmanager
def in_mode(model: Layer, mode: bool) -> Iterator[None]:
    """The model in training or evaluation mode, and afterwards as it was."""
    before = {layer: layer.training for _, layer in model.named_layers()}
    model.train(mode)
    try:
        yield
    finally:
        for layer, was in before.items():
            Layer.train(layer, was)


def as_loader(data: Data, batch_size: int, *, shuffle: bool, seed: int = 0) -> DataLoader:
    """A loader as it is, or one over a pair of host arrays."""
    if isinstance(data, DataLoader):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data must be a pair (x, y) or a DataLoader, got {checks.shown(data)}")
    return DataLoader(data[0], data[1], batch_size, shuffle=shuffle, seed=seed)
