"""``xpnn train``: make everything that the options name, train, measure on the held-out part, write the results."""

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

from ...backends import Backend, get_backend
from ...common.files import write_whole
from ...common.terminal import say
from ...distributed import Group
from ...interop import safetensors
from ...interop.onnx.from_onnx import contained, is_onnx
from ...layers.core.layer import Layer
from ...layers.losses import CrossEntropy
from ...training.checkpoint_file import CheckpointError
from ...training.data_loader import DataLoader
from ...training.datasets import Dataset, load_dataset
from ...training.early_stopping import EarlyStopping
from ...training.evaluation import evaluate
from ...training.fit import fit
from ...training.formatting import size
from ...training.gradients import parts_have_bits_of_whole
from ...training.history import History
from ...training.interrupt import Interrupted
from ...training.nan_check import NonFiniteError
from ...training.one_sample_batches import require_no_one_sample_batch
from ...training.optimizers.base import Optimizer
from ...training.out_of_memory import OutOfMemory
from ...training.saved_net.description import describe
from ...training.saved_net.weights import CONFIG, MODEL, NET, data_id
from ...training.schedules.base import Schedule
from ...training.tensorboard import TensorBoard
from .. import run_folder
from ..backend_option import open_backend
from ..config_file import as_toml
from ..errors import Failure, UsageError, one_line, preparing
from ..net_option import build_net
from ..run_folder import HISTORY, METRICS
from . import processes
from .from_options import make_loaders, make_optimizer, make_schedule, require_classes
from .metrics import METRIC, image_counts, print_summary, run_metrics
from .options import COMPILE
from .pictures import draw_pictures


@dataclass
class Job:
    """A model, the data and everything else that training needs."""

    options: argparse.Namespace
    data: Dataset
    model: Layer
    optimizer: Optimizer
    loader: DataLoader
    validation: DataLoader
    held_out: DataLoader
    schedule: Schedule | None
    group: Group


def run(options: argparse.Namespace) -> None:
    """Train, measure on the held-out part, write the results, and print where."""
    with preparing():
        group = processes.joined(options)
    with processes.together(group):
        _run(options, group)


def _run(options: argparse.Namespace, group: Group) -> None:
    opened = processes.by_root(group, lambda: run_folder.resumable_run(options.resume)) if options.resume else None
    job = processes.by_all(group, lambda: prepare(options, group))
    if not options.resume:
        opened = processes.by_root(group, lambda: _new_folder(job))
    folder = group.of_root(Path() if opened is None else opened.path)
    resume, keep, every = options.resume is not None, options.keep, options.checkpoint_every
    net = contained(options.model) if is_onnx(options.model) and not resume else None
    about = {"data": data_id(job.data.fingerprint)}
    checkpoints = run_folder.RunCheckpoints(folder, as_toml(options), resume, keep, every, about, net)
    group.advise(f"; with a checkpoint the run goes on: xpnn train --resume {folder}")
    try:
        with checkpoints if group.is_root else nullcontext():
            try:
                _train(job, folder, checkpoints)
            finally:
                if opened is not None:
                    opened.discard(checkpoints=True)
    except Interrupted as error:
        raise Interrupted(f"{error}; continue with: xpnn train --resume {folder}", error.number) from None
    except (CheckpointError, NonFiniteError, OutOfMemory) as error:
        group.fail(f"stopped: {one_line(error)}")
        print(f"xpnn train: {error}", file=sys.stderr)
        raise Failure from error
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = f"; then xpnn train --resume {folder} writes what is missing" if checkpoints.is_begun else ""
        group.fail(f"stopped: {one_line(error)}")
        print(f"xpnn train: {one_line(error)}{hint}", file=sys.stderr)
        raise Failure from error
    finally:
        if opened is not None:
            opened.discard()


def prepare(options: argparse.Namespace, group: Group) -> Job:
    """Make everything that the options name; in the options the backend and numerics become those that were opened."""
    if options.shards > 1 and options.accumulate > 1:
        raise UsageError("--shards and --accumulate: choose one; each computes a step in parts")
    if options.shards > 1 and group.size > 1:
        raise UsageError("--shards and --distributed: choose one; each splits every batch")
    backend = open_backend(options.backend, options.numerics)
    if group.size > 1 and backend.spec.startswith("cupy"):
        # One process for each GPU of a machine.
        backend = open_backend(group.device("cupy"), options.numerics)
    options.backend, options.numerics = backend.spec, backend.numerics
    # Refused here, before anything is written, where the backend does not have it.
    get_backend(backend, precision=options.precision)
    side = options.image_size
    data = load_dataset(options.data, image_size=None if side is None else (side, side))
    require_classes(data)
    require_memory(options, data, backend)
    model = build_net(_net(options), data.image, data.classes, backend, options.seed)
    optimizer = make_optimizer(options, model)
    loader, validation, held_out = make_loaders(options, data)
    steps = copy.copy(loader)
    steps.batch_size *= options.accumulate
    steps.require_batches()
    parts = group.size * (options.accumulate if options.accumulate > 1 else options.shards)
    as_one = options.accumulate == 1 and parts_have_bits_of_whole(model, CrossEntropy())
    require_no_one_sample_batch(model, steps, (1,) * (1 if as_one else parts))
    options.schedule_epochs = options.schedule_epochs or options.epochs
    schedule = make_schedule(options, optimizer, len(steps))
    return Job(options, data, model, optimizer, loader, validation, held_out, schedule, group)


def require_memory(options: argparse.Namespace, data: Dataset, backend: Backend) -> None:
    """Check, before any image is decoded, that a batch is smaller than the memory of the backend.

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
            f"a batch of {batch} images of {image} needs {size(needed)}, and the memory of {backend.spec} is "
            f"{size(capacity)}; make --image-size or --batch smaller"
        )


def _net(options: argparse.Namespace) -> str:
    """The net to build: for a run that goes on, the copy of its ONNX file."""
    if options.resume and is_onnx(options.model) and (copied := Path(options.resume) / NET).is_file():
        return str(copied)
    return str(options.model)


def _new_folder(job: Job) -> run_folder.RunFolder:
    net = job.options.model.rpartition(":")[2]
    net = Path(net).stem if is_onnx(net) else net
    return run_folder.new_run(job.options.out, f"{Path(job.data.name).stem}-{net}", job.options.force)


def _train(job: Job, folder: Path, checkpoints: run_folder.RunCheckpoints) -> None:
    options, data, model, held_out = job.options, job.data, job.model, job.held_out
    backend = model.backend
    if job.group.is_root:
        if options.resume and not checkpoints.steps():
            say(f"{folder} has no checkpoint yet; starting with epoch 1", sys.stderr)
        together = "" if job.group.size == 1 else f", {job.group.size} processes by {job.group.description}"
        say(
            f"{data.name}: {image_counts(data)}; {options.model} on {backend.spec}{together}; {folder}",
            sys.stderr,
        )
    backend.reset_peak()
    shows = job.group.is_root and TensorBoard.available()
    with TensorBoard(folder / "events") if shows else nullcontext() as events:

        def after_epoch(history: History) -> None:
            if not job.group.is_root:
                return
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
            early_stopping=EarlyStopping(options.patience, METRIC, restore_best=True) if options.patience else None,
            checkpoints=checkpoints,
            resume=options.resume is not None,
            after_epoch=after_epoch,
            compile=COMPILE[options.compile],
            precision=options.precision,
            group=job.group,
        )
    with backend.unwarned():
        # A loss that is NaN is written as it is.
        on_validation = evaluate(model, job.validation, group=job.group)
        on_test = on_validation if data.x_valid is None else evaluate(model, held_out, group=job.group)
    if not job.group.is_root:
        return
    checkpoints.begin()
    metrics = run_metrics(options, data, model, history, on_test, on_validation)
    net = Path(options.model).name if is_onnx(options.model) else options.model
    safetensors.save(model, folder / MODEL, describe(net, data, job.loader.transform))
    write_whole(folder / HISTORY, history.csv())
    write_whole(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    written = [folder / name for name in (MODEL, HISTORY, METRICS, CONFIG)]
    if not options.no_pictures:
        with backend.unwarned():
            written += draw_pictures(folder, model, held_out, data, history, metrics)
    if backend.numerics == "exact":
        print(f"{hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()}  {folder / MODEL}")
    print_summary(model, data, history, metrics)
    say(
        f"{metrics['test_part']} accuracy {metrics['test_accuracy']:.2%} ({len(data.y_test)} images) after "
        f"{metrics['seconds']:.1f} s"
    )
    for path in written:
        say(f"wrote {path}")
