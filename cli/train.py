"""Train a net on images, by default on real handwritten digits, and keep the result in a folder."""

import argparse
import copy
import hashlib
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ..backends import Backend
from ..common.files import write_whole
from ..common.terminal import say
from ..interop import safetensors
from ..layers.core.layer import Layer
from ..layers.losses import CrossEntropy
from ..layers.models import BUILDERS
from ..training.checkpoint_file import CheckpointError
from ..training.data_loader import DataLoader
from ..training.datasets import Dataset, load_dataset
from ..training.early_stopping import EarlyStopping
from ..training.evaluation import evaluate
from ..training.fit import fit
from ..training.formatting import size
from ..training.history import History
from ..training.interrupt import Interrupted
from ..training.nan_check import NumericalTrouble
from ..training.optimizers.base import Optimizer
from ..training.optimizers.rules import OPTIMIZERS
from ..training.out_of_memory import OutOfMemory
from ..training.schedules.base import Schedule
from ..training.shards import MOST_PARTS, in_parts_as_one
from ..training.single_samples import require_no_single_sample
from ..training.tensorboard import TensorBoard
from . import build, results
from . import run_folder as folders
from .backend_option import add_backend, add_numerics, open_backend
from .config import CONFIG, effective, expanded, from_file, given, value_of
from .errors import Failure, UsageError, at_least, not_negative, positive, preparing, text, told
from .results import describe
from .run_folder import HISTORY, METRICS, MODEL
from .trained import data_of

# What may be said anew when a run goes on; the rest is in its folder.
CHANGEABLE = {"backend", "checkpoint-every", "data", "epochs", "keep", "no-pictures", "on-nan", "patience"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn train`` takes."""
    add = parser.add_argument
    nets = ", ".join(sorted(BUILDERS))
    add("--config", default=None, type=text, metavar="FILE", help="a TOML file with any of these options")
    add(
        "--data",
        default="digits",
        type=text,
        metavar="digits|FILE.npz|DIR",
        help="images and labels; see docs/training.md",
    )
    add("--image-size", default=None, type=at_least(1), metavar="N", help="resize images of a folder to N x N pixels")
    add("--model", default="lenet", type=build.named_net, metavar="NET", help=f"{nets}, or module:function")
    add_backend(parser)
    add_numerics(parser)
    add("--epochs", default=30, type=at_least(1), metavar="N", help="passes over the data")
    add("--batch", default=16, type=at_least(1), metavar="N", help="samples in a batch")
    add("--drop-last", action="store_true", help="leave out the last batch of an epoch where it is not full")
    add(
        "--accumulate",
        default=1,
        type=at_least(1, MOST_PARTS),
        metavar="K",
        help="batches whose gradients make one step",
    )
    add("--shards", default=1, type=at_least(1, MOST_PARTS), metavar="K", help="parts of a batch, one by one")
    add(
        "--optimizer",
        default="adam",
        choices=sorted(OPTIMIZERS),
        metavar="NAME",
        help=f"how weights are updated: {', '.join(sorted(OPTIMIZERS))}",
    )
    add("--lr", default=0.001, type=positive, metavar="X", help="learning rate; with one-cycle the highest")
    add("--momentum", default=0.0, type=not_negative, metavar="X", help="of sgd and rmsprop")
    add("--weight-decay", default=0.0, type=not_negative, metavar="X", help="how strongly weights are drawn to 0")
    add(
        "--schedule",
        default="constant",
        choices=build.SCHEDULES,
        metavar="NAME",
        help=f"how the learning rate goes: {', '.join(build.SCHEDULES)}",
    )
    add(
        "--schedule-epochs",
        default=None,
        type=at_least(1),
        metavar="N",
        help="epochs that the schedule is laid out for (default: --epochs)",
    )
    add("--warmup", default=0, type=at_least(0), metavar="N", help="epochs in which cosine goes up first")
    add("--clip-norm", default=None, type=positive, metavar="X", help="largest norm of all gradients together")
    add("--clip-value", default=None, type=positive, metavar="X", help="largest size of a gradient's entry")
    add("--augment", default=[], nargs="*", choices=build.AUGMENTATIONS, help="what is done to images in training")
    add("--normalise", action="store_true", help="shift and scale channels to mean 0 and deviation 1")
    add("--seed", default=0, type=at_least(0), metavar="N", help="of weights, order of samples and augmentation")
    add("--on-nan", default="stop", choices=("stop", "skip"), help="what to do about a loss that is NaN or infinite")
    add(
        "--patience",
        default=None,
        type=at_least(1),
        metavar="N",
        help="stop after N epochs without a lower held-out loss",
    )
    add("--checkpoint-every", default=None, type=at_least(1), metavar="N", help="steps between checkpoints in an epoch")
    add("--keep", default=2, type=at_least(1), metavar="K", help="newest checkpoints kept, beside the best")
    add("--no-pictures", action="store_true", help="draw nothing")
    add("--out", default=None, type=text, metavar="DIR", help="where to write (default: a new folder in runs/)")
    add("--force", action="store_true", help="write into a folder that is not empty")
    add("--resume", default=None, type=text, metavar="DIR", help="go on with the run in that folder")


def expand(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The arguments with those of ``--config``, or of the run that ``--resume`` goes on with."""
    name = value_of("--resume", arguments)
    if name is None:
        told = expanded(arguments, parser)
        before, laid_out = told[: len(told) - len(arguments)], value_of("--schedule-epochs", told)
        if {*given(arguments)} >= {"epochs"} and laid_out is not None and laid_out == value_of("--epochs", before):
            # The file's schedule is laid out for its own epochs; this run's are others.
            before = [argument for argument in before if not argument.startswith("--schedule-epochs=")]
        return [*before, *arguments]
    fixed = [option for option in given(arguments) if option not in {"resume", *CHANGEABLE}]
    if fixed:
        raise UsageError(
            f"--resume goes on with the options in {Path(name) / CONFIG}; leave out --{fixed[0]} (what may change is "
            f"{', '.join('--' + option for option in sorted(CHANGEABLE))})"
        )
    before = from_file(folders.begun(name) / CONFIG, parser)
    schedule, epochs = value_of("--schedule", before), value_of("--epochs", before)
    if schedule in build.LAID_OUT and value_of("--epochs", arguments) not in (None, epochs):
        raise UsageError(f"--epochs: the schedule {schedule} of {name} is laid out for {epochs} epochs; leave it out")
    if value_of("--schedule-epochs", before) is None and epochs is not None:
        # A run of an earlier version; with more epochs its schedule stays what it was.
        before.append(f"--schedule-epochs={epochs}")
    return [*before, *arguments]


@dataclass
class Job:
    """What is trained, and on what."""

    options: argparse.Namespace
    data: Dataset
    model: Layer
    optimizer: Optimizer
    loader: DataLoader
    validation: DataLoader
    held_out: DataLoader
    schedule: Schedule | None


def run(options: argparse.Namespace) -> None:
    """Train, measure on the held-out part, write, and say where."""
    with preparing():
        resumed = folders.resumed(options.resume) if options.resume else None
        job = prepare(options)
        config = effective(options)
        about = {"data": data_of(job.data.fingerprint)}
        made = resumed or _new_folder(job)
    folder = made.path
    resume, keep, every = resumed is not None, options.keep, options.checkpoint_every
    checkpoints = folders.RunCheckpoints(folder, config, resume, keep, every, about)
    try:
        with checkpoints:
            try:
                _train(job, folder, checkpoints)
            finally:
                made.discard(checkpoints=True)
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: xpnn train --resume {folder}", error.number) from None
    except (CheckpointError, NumericalTrouble, OutOfMemory) as error:
        print(f"xpnn train: {error}", file=sys.stderr)
        raise Failure from error
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = f"; then xpnn train --resume {folder} writes what is missing" if checkpoints.is_begun else ""
        print(f"xpnn train: {told(error)}{hint}", file=sys.stderr)
        raise Failure from error
    finally:
        made.discard()


def prepare(options: argparse.Namespace) -> Job:
    """Make all that the options name; in them the backend and its numerics become what they turned out to be."""
    if options.shards > 1 and options.accumulate > 1:
        raise UsageError("--shards and --accumulate: choose one; each takes a step part by part")
    backend = open_backend(options.backend, options.numerics)
    options.backend, options.numerics = backend.spec, backend.numerics
    side = options.image_size
    data = load_dataset(options.data, image_size=None if side is None else (side, side))
    build.require_classes(data)
    require_memory(options, data, backend)
    model = build.net(options.model, data.image, data.classes, backend, options.seed)
    optimizer = build.optimizer(options, model)
    loader, validation, held_out = build.loaders(options, data)
    steps = copy.copy(loader)
    steps.batch_size *= options.accumulate
    steps.require_batches()
    parts = options.accumulate if options.accumulate > 1 else options.shards
    as_one = options.accumulate == 1 and in_parts_as_one(model, CrossEntropy())
    require_no_single_sample(model, steps, (1,) * (1 if as_one else parts))
    options.schedule_epochs = options.schedule_epochs or options.epochs
    schedule = build.schedule(options, optimizer, len(steps))
    return Job(options, data, model, optimizer, loader, validation, held_out, schedule)


def require_memory(options: argparse.Namespace, data: Dataset, backend: Backend) -> None:
    """Refuse images of which a batch is larger than the whole memory, before any is decoded.

    Raises
    ------
    UsageError
    """
    batch = min(options.batch, len(data.y_train))
    needed = batch * prod(data.image) * np.dtype(backend.dtype_name).itemsize
    capacity, _ = backend.capacity()
    if 0 < capacity < needed:
        image = " x ".join(map(str, data.image))
        raise UsageError(
            f"a batch of {batch} images of {image} takes {size(needed)}, and the memory of {backend.spec} is "
            f"{size(capacity)}; make --image-size or --batch smaller"
        )


def _new_folder(job: Job) -> folders.RunFolder:
    net = job.options.model.rpartition(":")[2]
    return folders.new(job.options.out, f"{Path(job.data.name).stem}-{net}", job.options.force)


def _train(job: Job, folder: Path, checkpoints: folders.RunCheckpoints) -> None:
    options, data, model, held_out = job.options, job.data, job.model, job.held_out
    backend = model.backend
    if options.resume and not checkpoints.steps():
        say(f"{folder} has no checkpoint yet; starting with epoch 1", sys.stderr)
    say(
        f"{data.name}: {results.counted(data)}; {options.model} on {backend.spec}; {folder}",
        sys.stderr,
    )
    backend.reset_peak()
    with TensorBoard(folder / "events") if TensorBoard.available() else nullcontext() as events:

        def after_epoch(history: History) -> None:
            write_whole(folder / HISTORY, history.csv())
            if events is not None:
                events.epoch(history.rows[-1])

        history = fit(
            model,
            job.loader,
            validation=job.validation,
            optimizer=job.optimizer,
            epochs=options.epochs,
            shards=options.shards,
            accumulate=options.accumulate,
            schedule=job.schedule,
            clip_norm=options.clip_norm,
            clip_value=options.clip_value,
            on_nan=options.on_nan,
            early_stopping=EarlyStopping(options.patience, results.METRIC, restore_best=True)
            if options.patience
            else None,
            checkpoints=checkpoints,
            resume=options.resume is not None,
            after_epoch=after_epoch,
        )
    with backend.unwarned():
        # A loss that is NaN is among the figures.
        looked_at = evaluate(model, job.validation)
        measured = looked_at if data.x_valid is None else evaluate(model, held_out)
    checkpoints.begin()
    metrics = results.metrics(options, data, model, history, measured, looked_at)
    safetensors.save(model, folder / MODEL, describe(options.model, data, job.loader.transform))
    write_whole(folder / HISTORY, history.csv())
    write_whole(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    written = [folder / name for name in (MODEL, HISTORY, METRICS, CONFIG)]
    if not options.no_pictures:
        with backend.unwarned():
            written += results.pictures(folder, model, held_out, data, history, metrics)
    if backend.numerics == "exact":
        print(f"{hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()}  {folder / MODEL}")
    results.summary(model, data, history, metrics)
    say(
        f"{metrics['test_part']} accuracy {metrics['test_accuracy']:.2%} ({len(data.y_test)} images) after "
        f"{metrics['seconds']:.1f} s"
    )
    for path in written:
        say(f"wrote {path}")
