"""The training loop.

One step copies its batch to the device and reads nothing back: loss and accuracy are added up on the device and read
once an epoch (and by the progress bar, a few times a second).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ..backends import Backend, use_backend
from ..backends.types import Array, dtype_name
from ..layers.base import Layer
from ..layers.losses import CrossEntropy, Loss
from .data import DataLoader
from .history import History
from .optimizer import Optimizer
from .optimizers import Adam
from .progress import Progress
from .shards import part_sizes, stepper

Data: TypeAlias = DataLoader | tuple[Any, Any]


class Tally:
    """Loss and accuracy over many batches, added up on the device."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.samples = 0
        self.targets = 0
        self._loss: Array | None = None
        self._correct: Array | None = None

    def add(self, loss: Array, prediction: Array, target: Array) -> None:
        """Count a batch, given its mean loss."""
        xp, n = self.backend.xp, int(prediction.shape[0])
        self.samples += n
        with self.backend.context():
            self._loss = loss * float(n) if self._loss is None else self._loss + loss * float(n)
            if _is_classification(prediction, target):
                self.targets += prod(target.shape)
                hits = xp.astype(xp.argmax(prediction, axis=1), target.dtype) == target
                correct = xp.sum(xp.astype(hits, xp.int64 if hasattr(xp, "int64") else xp.int32))
                self._correct = correct if self._correct is None else self._correct + correct

    def read(self, prefix: str = "") -> dict[str, float]:
        """Mean loss and, for classes, accuracy: waits for the device."""
        values = {}
        if self._loss is not None:
            values[f"{prefix}loss"] = float(self.backend.to_numpy(self._loss)) / self.samples
        if self._correct is not None:
            values[f"{prefix}accuracy"] = float(self.backend.to_numpy(self._correct)) / self.targets
        return values


def fit(
    model: Layer,
    data: Data,
    *,
    validation: Data | None = None,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    shards: int | Sequence[int] = 1,
) -> History:
    """Train a model on pairs of inputs and targets.

    Parameters
    ----------
    model : Layer
        Trained where it is.
    data : (x, y) or DataLoader
        Host arrays, or a loader, whose own batch size and seed then count.
    validation : (x, y) or DataLoader, optional
        Measured after each epoch.
    loss : Loss, optional
        With ``reduction="mean"``; `CrossEntropy` unless given.
    optimizer : Optimizer, optional
        ``Adam(model)`` unless given.
    epochs : int
        Passes over the data, at least 1.
    batch_size : int
        Samples in a batch; the last may hold fewer.
    seed : int
        Of the order of the samples.
    progress : bool
        Whether to show a bar on a terminal, and a line an epoch elsewhere, on standard error.
    shards : int or sequence of int
        Take each step on so many parts of its batch, or on parts of these relative sizes. In exact numerics that gives
        the bits of the whole batch; in fast numerics gradients are accumulated part by part, which needs less memory,
        and a batch norm sees the statistics of a part. A model of which a layer or the loss computes in fast numerics
        is one of these.

    Returns
    -------
    History
        Loss and accuracy of each epoch; those of training are averages while the weights moved.

    Raises
    ------
    ValueError
        For epochs, a batch size or shards below 1, data that is empty or whose lengths differ, a loss that is no mean.
    """
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"epochs takes an integer >= 1, got {epochs!r}")
    sizes = part_sizes(shards)
    loss = CrossEntropy() if loss is None else loss
    if loss.reduction != "mean":
        raise ValueError(f"fit takes a loss with reduction='mean', got {loss!r}")
    loader = _loader(data, batch_size, shuffle=True, seed=seed)
    held_out = None if validation is None else _loader(validation, batch_size, shuffle=False)
    optimizer = Adam(model) if optimizer is None else optimizer

    history = History()
    b = model.backend
    with (
        use_backend(b),
        Progress(epochs, len(loader), shown=progress) as bar,
        _training(model, True),
        stepper(model, loss, sizes) as step,
    ):
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            tally = Tally(b)
            for number, (x, target) in enumerate(loader.batches(b), 1):
                optimizer.zero_grad()
                value, prediction = step(x, target)
                tally.add(value, prediction, target)
                optimizer.step()
                bar.step(epoch, number, int(x.shape[0]), tally.read)
            row = {"epoch": epoch, **tally.read("train_")}
            if held_out is not None:
                row |= {f"validation_{name}": value for name, value in evaluate(model, held_out, loss=loss).items()}
            row["seconds"] = time.perf_counter() - started
            history.append(row)
            bar.epoch(row)
    optimizer.zero_grad()
    return history


def evaluate(model: Layer, data: Data, *, loss: Loss | None = None, batch_size: int = 256) -> dict[str, float]:
    """Mean ``loss`` and, for classes, ``accuracy`` of a model in evaluation mode; its mode is put back."""
    loss = CrossEntropy() if loss is None else loss
    tally = Tally(model.backend)
    with use_backend(model.backend), _training(model, False):
        for x, target in _loader(data, batch_size, shuffle=False).batches(model.backend):
            prediction = model.forward(x)
            tally.add(loss.forward(prediction, target), prediction, target)
    return tally.read()


def predict(model: Layer, x: Any, *, batch_size: int = 256) -> np.ndarray[Any, Any]:
    """A model's outputs for host inputs ``x (N, ...)``, on the host; evaluation mode, batch by batch."""
    b = model.backend
    x = np.asarray(x)
    outputs = []
    with _training(model, False):
        for start in range(0, max(len(x), 1), batch_size):
            part = b.asarray(x[start : start + batch_size], b.dtype if x.dtype.kind == "f" else None)
            outputs.append(b.to_numpy(model.forward(part)))
    return np.concatenate(outputs)


@contextmanager
def _training(model: Layer, mode: bool) -> Iterator[None]:
    """The model in training or evaluation mode, and afterwards as it was."""
    before = {layer: layer.training for _, layer in model.named_layers()}
    model.train(mode)
    try:
        yield
    finally:
        for layer, was in before.items():
            Layer.train(layer, was)


def _loader(data: Data, batch_size: int, *, shuffle: bool, seed: int = 0) -> DataLoader:
    if isinstance(data, DataLoader):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data takes a pair (x, y) or a DataLoader, got {type(data).__name__}")
    return DataLoader(data[0], data[1], batch_size, shuffle=shuffle, seed=seed)


def _is_classification(prediction: Array, target: Array) -> bool:
    return dtype_name(target.dtype).startswith(("int", "uint")) and target.ndim == prediction.ndim - 1
