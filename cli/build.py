"""From options to what they name: nets, optimizers, schedules, batches."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from ..backends import Backend, BackendUnavailable
from ..layers.core.layer import Layer
from ..layers.models import BUILDERS
from ..training.augment import Compose, Cutout, Flip, Normalise, PadAndCrop
from ..training.data_loader import DataLoader
from ..training.datasets import Dataset
from ..training.optimizers import OPTIMIZERS, Optimizer
from ..training.schedules import CosineLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from ..training.schedules.base import Schedule
from ..training.single_samples import require_no_single_sample
from .errors import UsageError

SCHEDULES = ("constant", "cosine", "exponential", "one-cycle", "plateau", "step")
AUGMENTATIONS = ("crop", "cutout", "flip")
# Those that are laid out for a number of epochs, which therefore can't change on the way.
LAID_OUT = ("cosine", "one-cycle")


def named_net(name: str) -> str:
    """An argument that names a net: one of those built in, or a function as ``module:function``."""
    module, colon, function = name.partition(":")
    if name in BUILDERS or (colon and module and function.isidentifier()):
        return name
    raise argparse.ArgumentTypeError(
        f"takes one of {', '.join(sorted(BUILDERS))}, or module:function of your own, got {name!r}"
    )


def builder(name: str) -> Callable[..., Layer]:
    """What makes a net for an image ``(C, H, W)`` and a number of classes; imports a user's module."""
    if name in BUILDERS:
        return BUILDERS[name]
    module, _, function = name.partition(":")
    # As `python -m` does: the user's own modules lie where the command is given.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {name}: {error}") from error
    except Exception as error:
        # The module is the user's own, and so is what it raises.
        raise UsageError(f"--model {name}: {type(error).__name__}: {error}{_place(error)}") from error
    if not callable(found):
        raise UsageError(f"--model {name} is {type(found).__name__}, no function of an image's shape and the classes")
    return cast(Callable[..., Layer], found)


def _place(error: Exception) -> str:
    """Where in a file an error was raised; `SyntaxError` says it itself."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"


def net(name: str, image: tuple[int, int, int], classes: int, backend: Backend | None, seed: int = 0) -> Layer:
    """The net of that name, on a backend where one is given."""
    make = builder(name)
    where: dict[str, Any] = {} if backend is None else {"backend": backend, "seed": seed}
    try:
        model = make(image, classes, **where)
    except TypeError as error:
        raise UsageError(
            f"--model {name}: {error}; it is called as {name.rpartition(':')[2]}(image, classes, backend=..., seed=...)"
        ) from error
    except (UsageError, BackendUnavailable, ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        if name in BUILDERS:
            raise
        raise UsageError(f"--model {name}: {type(error).__name__}: {error}{_place(error)}") from error
    if not isinstance(model, Layer):
        raise UsageError(f"--model {name} gave {type(model).__name__}, no layer")
    return model


def optimizer(options: argparse.Namespace, model: Layer) -> Optimizer:
    """The optimizer that the options name, over a model."""
    settings = {"lr": options.lr, "weight_decay": options.weight_decay}
    kind = OPTIMIZERS[options.optimizer]
    if options.momentum:
        if "momentum" not in kind.settings:
            raise UsageError(f"--momentum is no setting of {options.optimizer}; leave it out")
        settings["momentum"] = options.momentum
    return kind(model, **settings)


def schedule(options: argparse.Namespace, optimizer: Optimizer, steps: int) -> Schedule | None:
    """The schedule that the options name, for so many steps an epoch; None for a constant rate.

    It is laid out for ``schedule_epochs``, which stay what they are when a run goes on for more epochs.
    """
    epochs = options.schedule_epochs
    total = steps * epochs
    if options.warmup and options.schedule != "cosine":
        raise UsageError(f"--warmup goes with --schedule cosine, not {options.schedule}")
    if options.schedule in LAID_OUT and epochs < options.epochs:
        raise UsageError(
            f"--schedule-epochs {epochs}: the schedule {options.schedule} would end before --epochs {options.epochs}; "
            f"leave it out, or make it at least {options.epochs}"
        )
    match options.schedule:
        case "cosine":
            if options.warmup >= epochs:
                raise UsageError(f"--warmup {options.warmup} leaves nothing of {epochs} epochs")
            return CosineLR(optimizer, total, warmup=options.warmup * steps)
        case "one-cycle":
            moving = hasattr(optimizer, "betas") or bool(getattr(optimizer, "momentum", 0.0))
            return OneCycleLR(optimizer, options.lr, total, cycle_momentum=moving)
        case "step":
            return StepLR(optimizer, max(1, epochs // 3) * steps)
        case "exponential":
            # A hundredth of the rate is left at the end; rounded, since the last bit of a power is each machine's own.
            return ExponentialLR(optimizer, round(0.01 ** (1.0 / total), 12))
        case "plateau":
            return ReduceLROnPlateau(optimizer, patience=3)
    return None


def require_classes(data: Dataset) -> None:
    """Raise `UsageError` for data of one class."""
    if data.classes < 2:
        raise UsageError(f"{data.name} has one class, {data.class_names[0]}; a net tells two apart, or more")


def trainable(model: Layer, data: Dataset, loader: DataLoader) -> DataLoader:
    """The loader; `ValueError` or `UsageError` where `fit` would refuse data of one class, or a batch of one sample."""
    require_classes(data)
    require_no_single_sample(model, loader)
    return loader


def loaders(options: argparse.Namespace, data: Dataset) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Batches for training, prepared as the options say, of the part for choosing, and of the held-out part."""
    prepare = preparation(options.augment, data.image, Normalise.of(data) if options.normalise else None)
    train = data.loader(options.batch, seed=options.seed, transform=prepare, drop_last=options.drop_last)
    # What fits in training fits in evaluation.
    others = (data.validation(options.batch, transform=prepare), data.held_out(options.batch, transform=prepare))
    return train, *others


def preparation(names: Sequence[str], image: tuple[int, int, int], normalise: Normalise | None) -> Compose | None:
    """What is done to images ``(C, H, W)``, in this order: crop, flip, normalise, cut out."""
    _, height, width = image
    steps = [
        PadAndCrop(max(1, min(height, width) // 8)) if "crop" in names else None,
        Flip() if "flip" in names else None,
        normalise,
        # Last, so that what is cut out is the mean.
        Cutout(max(1, min(height, width) // 4)) if "cutout" in names else None,
    ]
    chosen = [step for step in steps if step is not None]
    return Compose(*chosen) if chosen else None
