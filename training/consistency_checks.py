"""Checks that model, optimizer, schedule, loss and data fit together, before the first update.

Otherwise a run could end without an error, and with metrics, though it learned nothing.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backends import to_host
from ..common.checks import instance
from ..common.types import Array, dtype_name
from ..layers.core.layer import Layer
from ..layers.losses import NLL, BinaryCrossEntropy, BinaryCrossEntropyWithLogits, CrossEntropy, Loss
from .data_loader import DataLoader
from .optimizers import Optimizer
from .schedules.base import Schedule, TimedSchedule

# How far probabilities may be from a sum of 1, and logarithms of probabilities above 0.
ROUNDING = 1e-3
# The most parameters that a message names.
NAMED = 3
# Parts of messages: which loss to use.
NUMBERS = "for numbers pass loss=nn.MSE(), with y of the shape of the model's output, such as (N, 1)"
YES_OR_NO = "for yes or no loss=nn.BinaryCrossEntropyWithLogits(), with y in floats of that shape"


def require_trainable(model: Layer, optimizer: Optimizer, schedule: Schedule | None) -> None:
    """Raise `ValueError` unless the optimizer has parameters of the model only, some of them not frozen, and the
    schedule is the optimizer's."""
    instance("optimizer", optimizer, Optimizer, "make one with Adam(model)")
    kind, own = type(optimizer).__name__, {parameter for _, parameter in model.named_parameters()}
    foreign = {name: parameter.shape for name, parameter in optimizer.parameters.items() if parameter not in own}
    if foreign:
        shown = ", ".join(f"{name} {shape}" for name, shape in list(foreign.items())[:NAMED])
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        count = "none" if len(foreign) == len(optimizer.parameters) else "not all"
        raise ValueError(
            f"{count} of the optimizer's parameters are the model's: {shown}{more} belong to another model, or were "
            f"replaced in this one after the optimizer was made; make it with {kind}(model)"
        )
    if not any(parameter.requires_grad for parameter in optimizer.parameters.values()):
        raise ValueError(
            "all of the optimizer's parameters are frozen, so that there is nothing to train: unfreeze some with "
            "layer.unfreeze(), or parameter.requires_grad = True"
        )
    if schedule is not None and instance("schedule", schedule, Schedule).optimizer is not optimizer:
        raise ValueError(
            f"schedule sets the rate of another optimizer than the one that trains: {schedule!r}; pass "
            "optimizer=schedule.optimizer, or make the schedule with the optimizer that is passed"
        )


def require_schedule_lasts(schedule: Schedule | None, each: str, batches: int, epochs: int, done: int) -> None:
    """Raise `ValueError` if the schedule ends, or sets a rate of 0, before the run ends.

    Parameters
    ----------
    schedule : Schedule, optional
    each : {"step", "epoch"}
        What it counts.
    batches, epochs : int
        Batches of an epoch, and epochs of the run.
    done : int
        Steps or epochs done already, according to ``each``.
    """
    total = getattr(schedule, "total_steps", None)
    if not isinstance(schedule, TimedSchedule) or total is None or not (schedule.ends or schedule.rate(total) == 0.0):
        return
    rest = epochs * (batches if each == "step" else 1) - done
    if rest > total - schedule.taken:
        minimum = "" if schedule.ends else ", or with a minimum above 0: the rate would be 0 for the rest"
        raise ValueError(
            f"{type(schedule).__name__} has {total} steps, {schedule.taken} of them done, and this run needs {rest} "
            f"({epochs} epochs of {batches} batches, one {each} each): make it with "
            f"total_steps={schedule.taken + rest}{minimum}"
        )


def require_targets(loss: Loss, data: DataLoader, by_default: bool) -> None:
    """Raise `ValueError` for targets that the loss can't be used with; ``by_default`` if the user gave no loss."""
    y = _host_targets(data)
    if y is None or y.dtype.kind != "f":
        return
    what = f"y holds {y.dtype.name} of shape {y.shape}"
    if isinstance(loss, CrossEntropy):
        usual = ", the default loss of fit and evaluate," if by_default else ""
        if y.ndim < 2 or y.shape[1] == 1:
            raise ValueError(
                f"{what}, but CrossEntropy{usual} needs classes, which are integers, or probabilities of at least two "
                f"classes: {NUMBERS}; {YES_OR_NO}"
            )
        if by_default and not ((y >= 0.0).all() and (abs(y.sum(axis=1) - 1.0) <= ROUNDING).all()):
            raise ValueError(
                f"{what} that are no probabilities: some are negative, or do not add up to 1 over the classes, axis 1; "
                f"{NUMBERS}; for weights of classes loss=nn.CrossEntropy()"
            )
    if isinstance(loss, BinaryCrossEntropy | BinaryCrossEntropyWithLogits) and y.size:
        low, high = float(y.min()), float(y.max())
        if low < 0.0 or high > 1.0:
            raise ValueError(
                f"{what} from {low:g} to {high:g}, but {type(loss).__name__} needs 0 for no, 1 for yes, and "
                f"probabilities between; for classes pass loss=nn.CrossEntropy(), with y in integers; {NUMBERS}"
            )


def require_predictions(loss: Loss, prediction: Array, data: DataLoader) -> None:
    """Raise `ValueError` if training with that loss can learn nothing from a model's first predictions.

    Copies the predictions to the host if the loss is one of probabilities or of their logarithms.
    """
    kind, shape = type(loss).__name__, tuple(prediction.shape)
    if isinstance(loss, CrossEntropy | NLL) and len(shape) >= 2:
        if shape[1] == 1:
            raise ValueError(
                f"the model predicts one class (predictions of shape {shape}), of which {kind} is 0 whatever the "
                f"weights are: {YES_OR_NO}; {NUMBERS}"
            )
        _require_classes(loss, shape[1], data)
    if isinstance(loss, NLL | BinaryCrossEntropy) and prod(shape):
        values = to_host(prediction)
        low, high = float(values.min()), float(values.max())
        if isinstance(loss, BinaryCrossEntropy) and (low < 0.0 or high > 1.0):
            raise ValueError(
                f"predictions run from {low:g} to {high:g}, but {kind} needs probabilities, from 0 to 1: end the model "
                "with a Sigmoid, or pass loss=nn.BinaryCrossEntropyWithLogits()"
            )
        if isinstance(loss, NLL) and high > ROUNDING:
            raise ValueError(
                f"predictions run from {low:g} to {high:g}, but {kind} needs logarithms of probabilities, at most 0: "
                "end the model with a LogSoftmax, or pass loss=nn.CrossEntropy()"
            )


def _require_classes(loss: CrossEntropy | NLL, classes: int, data: DataLoader) -> None:
    y = _host_targets(data)
    if y is None or y.dtype.kind not in "iu" or not y.size:
        return
    counted = y[y != loss.ignore_index]
    if counted.size and (int(counted.min()) < 0 or int(counted.max()) >= classes):
        raise ValueError(
            f"targets run from {int(counted.min())} to {int(counted.max())}, but the model predicts {classes} classes, "
            f"0 to {classes - 1} (ignore_index is {loss.ignore_index})"
        )


def _host_targets(data: DataLoader) -> np.ndarray[Any, Any] | None:
    """All targets, if they are in host memory."""
    y = data.targets
    return y if isinstance(y, np.ndarray) and dtype_name(y.dtype) != "bool" else None
