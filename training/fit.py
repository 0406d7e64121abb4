"""`fit`: train a model in one call."""

import copy
import os
from collections.abc import Callable, Sequence

from ..common import checks
from ..layers.core.layer import Layer
from ..layers.losses import CrossEntropy, Loss
from .checkpoint_file import CheckpointError
from .checkpoints import Checkpoints
from .early_stopping import EarlyStopping
from .evaluation import Data, as_loader, evaluate, predict
from .history import History
from .optimizers.base import Optimizer
from .optimizers.rules import Adam
from .schedules.base import Schedule
from .shards import MOST_PARTS, in_parts_as_one, part_sizes
from .trainer import Trainer

__all__ = ["Data", "evaluate", "fit", "predict"]


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
    accumulate: int = 1,
    schedule: Schedule | None = None,
    schedule_each: str = "step",
    clip_norm: float | None = None,
    clip_value: float | None = None,
    on_nan: str | None = None,
    early_stopping: EarlyStopping | int | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    resume: bool = False,
    after_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train a model on pairs of inputs and targets.

    Parameters
    ----------
    model : Layer
        Trained where it is.
    data : (x, y) or DataLoader
        Host arrays, or a loader, whose own batch size and seed then count.
    validation : (x, y) or DataLoader, optional
        Measured after each epoch, as by `evaluate`: a pair in batches of training's size (with ``shards``, unless in
        exact numerics, of the largest part's), a loader in its own.
    loss : Loss, optional
        With ``reduction="mean"`` (or ``"batchmean"``); `CrossEntropy` unless given.
    optimizer : Optimizer, optional
        ``Adam(model)`` unless given.
    epochs : int
        Passes over the data, at least 1.
    batch_size : int
        Samples in a batch; the last may hold fewer.
    seed : int
        Of the order of the samples.
    progress : bool
        Whether to show a bar on a terminal, and lines elsewhere, on standard error.
    shards : int or sequence of int
        Take each step on so many parts of its batch, or on parts of these relative sizes. In exact numerics that gives
        the bits of the whole batch; in fast numerics gradients are accumulated part by part, which needs less memory,
        and a batch norm sees the statistics of a part. A model of which a layer or the loss computes in fast numerics
        is one of these.
    accumulate : int
        Add up the gradients of so many batches for one step, one batch after the other: the memory of one, the gradient
        of all. Not together with shards.
    schedule : Schedule, optional
        Of the optimizer's learning rate. `ReduceLROnPlateau` looks at the validation loss, or else the training loss,
        after each epoch; the others go on with each step.
    schedule_each : {"step", "epoch"}
        What a schedule counts, unless it is `ReduceLROnPlateau`.
    clip_norm, clip_value : float, optional
        Clip gradients before each update: all together to a norm (`clip_grad_norm`), each entry to a size.
    on_nan : {"stop", "skip", None}
        What to do about a loss that is NaN or infinite: stop with a `NumericalTrouble` that names the step and the
        layer where it first appeared, or pass over the batch, leaving the model as it was, 19 times in a row at most.
        For that, one number is read from the device in each step; with None nothing is, and training goes on.
    early_stopping : EarlyStopping or int, optional
        Stop when a figure has not improved for so many epochs. A number stands for ``EarlyStopping(number)`` of the
        validation loss, or without validation of the training loss.
    checkpoints : Checkpoints or path, optional
        A folder in which to keep the state of the run: after the steps of each epoch, before they are measured on the
        validation data, and again with the figures. Ctrl-C then saves before it stops. The newest are kept and the best
        one (`Checkpoints.best`): by the metric of ``early_stopping``, or else by the validation loss, or without
        validation by the training loss.
    resume : bool
        Go on from the newest good checkpoint there, where there is one. The run then ends with the bits of one that was
        never interrupted: on the same backend in fast numerics, on any in exact numerics. Settings must be those of
        the saved run: optimizer, schedule, loss, clipping, accumulate, shards (but in exact numerics), batch size, and
        the metric of the best epoch. There may be more epochs, unless the schedule is laid out for the number
        (`CosineLR`, `OneCycleLR`).
    after_epoch : callable, optional
        Called with the history.

    Returns
    -------
    History
        Loss and accuracy of each epoch, over all targets that are not ignored; those of training are averages while the
        weights moved. With a schedule the
        learning rate after the epoch's last step too, and with ``on_nan="skip"`` how many batches were skipped.

    Raises
    ------
    TypeError, ValueError
        Before the first step: for arguments of another kind, epochs, a batch size, shards or another number out of
        range, data that is empty or whose lengths differ, a loss that is no mean, a metric that the history will not
        have, a schedule that ends before the run, a batch of one sample for a batch norm; for an optimizer with
        parameters that are not the model's, or a schedule of another optimizer; and, at the first step, for targets or
        predictions of which the loss can teach nothing: numbers or one class with `CrossEntropy`, classes out of range,
        predictions that are no probabilities or no logarithms of them.
    NumericalTrouble
        For a loss that is NaN or infinite, while at least one target counts. NumPy's own warnings of these are not
        shown then, unless the step runs code that is not this library's.
    OutOfMemory
        Where a batch does not fit, in training or in evaluation; the message names one that does.
    CheckpointError
        If a checkpoint can't be written, or is damaged or another run's (the message says what differs), if another run
        writes to the folder, or one did and ``resume`` is False.
    """
    checks.instance("model", model, Layer)
    batch_size, epochs = checks.integer("batch_size", batch_size, 1), checks.integer("epochs", epochs, 1)
    progress, resume = checks.flag("progress", progress), checks.flag("resume", resume)
    sizes = part_sizes(shards)
    accumulate = checks.integer("accumulate", accumulate, 1, MOST_PARTS)
    if accumulate > 1 and len(sizes) > 1:
        raise ValueError("shards and accumulate each take a step part by part; give one of them")
    is_usual_loss = loss is None
    loss = CrossEntropy() if loss is None else checks.instance("loss", loss, Loss)
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        if not checks.is_integer(early_stopping):
            checks.instance("early_stopping", early_stopping, EarlyStopping, "or give its patience, a number of epochs")
        early_stopping = EarlyStopping(early_stopping, "train_loss" if validation is None else "validation_loss")
    if resume and checkpoints is None:
        raise ValueError("resume=True needs checkpoints, the folder to go on from")
    if checkpoints is not None and not isinstance(checkpoints, Checkpoints):
        if not isinstance(checkpoints, str | os.PathLike):
            raise TypeError(f"checkpoints must be a folder's path or Checkpoints, got {checks.shown(checkpoints)}")
        checkpoints = Checkpoints(checkpoints)
    loader = as_loader("data", data, batch_size, shuffle=True, seed=seed)
    measured = loader.batch_size
    if len(sizes) > 1 and not in_parts_as_one(model, loss):
        # Of a step in parts, no more than one is in memory.
        measured = -(-measured * max(sizes) // sum(sizes))
    if accumulate > 1:
        loader = copy.copy(loader)
        loader.batch_size *= accumulate
    trainer = Trainer(
        model,
        loader,
        loss,
        Adam(model) if optimizer is None else optimizer,
        epochs,
        validation=None if validation is None else as_loader("validation", validation, measured, shuffle=False),
        schedule=schedule,
        schedule_each=schedule_each,
        sizes=sizes,
        accumulate=accumulate,
        clip_norm=clip_norm,
        clip_value=clip_value,
        on_nan=on_nan,
        early_stopping=early_stopping,
        checkpoints=checkpoints,
        after_epoch=after_epoch,
        shown=progress,
        is_usual_loss=is_usual_loss,
    )
    if checkpoints is not None:
        if resume:
            trainer.resume_newest()
        elif checkpoints.steps():
            raise CheckpointError(
                f"{checkpoints.folder} holds checkpoints of an earlier run; go on with it (resume=True), name another "
                "folder, or delete them (Checkpoints(folder).clear())"
            )
    return trainer.run()
