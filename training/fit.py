"""`fit`: train a model in one call."""

from ..layers.core.precision import computing_in
from .checkpoint_file import CheckpointError
from .evaluation import Data, evaluate, predict
from .history import History
from .options import FitOptions, with_arguments_of
from .ranks.same_run import require_same_run
from .run import Run
from .saving import resume_newest
from .trainer import Trainer

__all__ = ["Data", "evaluate", "fit", "predict"]


@with_arguments_of(FitOptions)
def fit(options: FitOptions) -> History:
    """Train a model on pairs of inputs and targets.

    Parameters
    ----------
    model : Layer
        Trained in place, but for frozen parameters. If it is in training mode, layers within that are in evaluation
        when training begins stay in it, such as a batch norm after ``layer.eval()``; if the model itself is in
        evaluation, all of it is trained, and has its modes again afterwards.
    data : (x, y) or DataLoader
        Host arrays, or a loader, whose own batch size and seed are used.
    validation : (x, y) or DataLoader, optional
        Evaluated after each epoch, as by `evaluate`. A pair is split into batches of training's size; with ``shards``
        in fast numerics, of the size of the largest part. A loader keeps its batch size.
    loss : Loss, optional
        With ``reduction="mean"`` (or ``"batchmean"``); `CrossEntropy` unless given.
    optimizer : Optimizer, optional
        ``Adam(model)`` unless given.
    epochs : int
        Passes over the data, at least 1.
    batch_size : int
        Samples in a batch; the last may hold fewer.
    seed : int
        Seed of the order of the samples.
    progress : bool
        Whether to show a progress bar on a terminal, or lines elsewhere, on standard error.
    shards : int or sequence of int
        Compute each step in this number of parts of its batch, or in parts of these relative sizes. In exact numerics
        the results have the bits of the whole batch; if the loss or a layer computes in fast numerics, gradients are
        accumulated part by part, which needs less memory, and a batch norm uses the statistics of each part.
    accumulate : int
        Number of batches whose gradients are added up for one step. The batches are computed one after another, so the
        step needs the memory of one. Can't be combined with ``shards``.
    schedule : Schedule, optional
        Schedule of the optimizer's learning rate. `ReduceLROnPlateau` reads the validation loss after each epoch, or
        without validation the training loss; the others advance with each step.
    schedule_each : {"step", "epoch"}
        What the schedule counts; `ReduceLROnPlateau` always counts epochs.
    clip_norm, clip_value : float, optional
        Clip gradients before each update: all together to a norm (`clip_grad_norm`), each entry to an absolute value.
    ema : EMA, optional
        A moving average of the model's weights, which is updated after each step and saved in checkpoints. The
        held-out part is measured with the averages. The model ends with its own weights: ``with ema.applied():``.
    on_nan : {"stop", "skip", None}
        What to do about a loss that is NaN or infinite: stop with a `NonFiniteError` that names the step and the
        layer where it first appeared, or skip the batch, which leaves the model as it was, 19 times in a row at most.
        For that, one number is read from the device in each step; with None nothing is read, and training continues.
    early_stopping : EarlyStopping or int, optional
        Stop when a metric has not improved for this number of epochs. A number stands for ``EarlyStopping(number)`` of
        ``monitor``.
    metrics : sequence of metrics or functions
        What to measure beside the loss, in training and validation: objects of `xpnn.metrics`, such as
        ``nn.metrics.IoU(3)``, or functions ``(prediction, target) -> number``. They are added up on the device, which
        is read once in an epoch for each part of the data. The history has ``train_NAME`` and ``validation_NAME``.
    monitor : str, optional
        The column of the history by which the best epoch is chosen, for the best checkpoint and for a number of epochs
        as ``early_stopping``: the validation loss, or without validation the training loss, unless given.
    mode : {"min", "max"}, optional
        Whether small or large values of ``monitor`` are good; unless given, that of the metric. It must be given for
        functions whose name does not say it.
    checkpoints : Checkpoints or path, optional
        A folder in which to save the state of the run: after the steps of each epoch, before validation, and again
        after it. Ctrl-C then saves before it stops. The newest are kept and the best one (`Checkpoints.best`): by the
        metric of ``early_stopping``, or else by ``monitor``.
    resume : bool
        Continue from the newest undamaged checkpoint in the folder, if there is one. The run then ends with the bits of
        one that was never interrupted: on the same backend in fast numerics, on any in exact numerics. Settings must be
        those of the saved run: optimizer, schedule, loss, clipping, accumulate, shards (except in exact numerics),
        batch size, metrics, and the metric of the best epoch. There may be more epochs, unless the schedule has a fixed
        number of steps (`CosineLR`, `OneCycleLR`).
    after_epoch : callable, optional
        Called with the history.
    compile : {"auto", True, False}
        Whether to record a step and replay it (`Backend.compile`), which gives the same bits faster. By default runs of
        at least 100 steps are compiled if the backend can, batches are computed whole, and all code of a step is this
        library's; on a CPU nets with at most 16 MiB of parameters. If a step can't be recorded, a line says why, and
        training goes on uncompiled; with True that is a `CaptureError`.

    precision : {"float32", "tf32", "float16", "bfloat16"}, optional
        What the run computes in, validation included; that of the model's backend unless given (`get_backend`). In
        float16 and bfloat16, mixed precision, weights, gradients and the optimizer's state stay float32. In float16 a
        `GradScaler` scales the loss and leaves out steps with infinite gradients, which count in the metrics only, not
        in a schedule. Steps in mixed precision are not compiled. Afterwards the model has the precision that it had.

    group : Group, optional
        Processes that train together (`xpnn.distributed.init`), all with the same arguments: each computes its part of
        every batch, and all end with the same weights. ``batch_size`` is that of all together. In exact numerics the
        results have the bits of one process; in fast numerics a batch norm uses the statistics of its part, unless it
        was made with ``group``. Rank 0 writes checkpoints and shows progress; ``after_epoch`` is called on all ranks.

    Returns
    -------
    History
        Loss, accuracy of classes and metrics of each epoch, over all targets that are not ignored; those of training
        are averages over the epoch's steps. With a schedule also the learning rate after the epoch's last step, and
        with ``on_nan="skip"`` the number of skipped batches.

    Raises
    ------
    TypeError, ValueError
        Before the first step: for arguments of another kind, epochs, a batch size, shards or another number out of
        range, data that is empty or whose lengths differ, a loss that is not a mean, a metric that the history will not
        have, a precision that the model's backend does not have, a schedule that ends before the run, a batch of one
        sample for a batch norm; for an optimizer with parameters that are not the model's, or a schedule of
        another optimizer; and, at the first step, for targets or predictions that the loss can't be trained on: numbers
        or one class with `CrossEntropy`, classes out of range, predictions that are not probabilities or logarithms of
        them.
    NonFiniteError
        If the loss is NaN or infinite, while at least one target counts. NumPy's own warnings of these are hidden then,
        unless the step runs code that is not this library's.
    RankError
        With ``group``, if another rank died, hangs or raised an error.
    OutOfMemory
        If a batch does not fit, in training or in evaluation; the message names one that does.
    CheckpointError
        If a checkpoint can't be written, or is damaged or another run's (the message says what differs), if another run
        writes to the folder, or an earlier run did and ``resume`` is False.
    """
    with options.processes.reporting(), computing_in(options.model, options.precision):
        run = Run(options)
        require_same_run(run)
        if options.resume:
            resume_newest(run)
        elif run.group.is_root and run.checkpoints is not None and run.checkpoints.steps():
            raise CheckpointError(
                f"{run.checkpoints.folder} holds checkpoints of an earlier run; go on with it (resume=True), name "
                "another folder, or delete them (Checkpoints(folder).clear())"
            )
        return Trainer(run).train()
