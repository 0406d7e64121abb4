"""Optimizer, schedule and batches of ``xpnn train``, made from its options."""

import argparse
from collections.abc import Sequence

from ...layers.core.layer import Layer
from ...training.augment import Compose, Cutout, Flip, Normalise, PadAndCrop
from ...training.data_loader import DataLoader
from ...training.datasets import Dataset
from ...training.optimizers import OPTIMIZERS
from ...training.optimizers.base import Optimizer
from ...training.schedules import CosineLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from ...training.schedules.base import Schedule
from ..errors import UsageError

SCHEDULES = ("constant", "cosine", "exponential", "one-cycle", "plateau", "step")
AUGMENTATIONS = ("crop", "cutout", "flip")
# Schedules that end after a number of epochs, so that a run of them can't become longer.
FIXED_LENGTH = ("cosine", "one-cycle")


def make_optimizer(options: argparse.Namespace, model: Layer) -> Optimizer:
    """The optimizer that the options name, for the parameters of a model."""
    settings = {"lr": options.lr, "weight_decay": options.weight_decay}
    kind = OPTIMIZERS[options.optimizer]
    if options.momentum:
        if "momentum" not in kind.settings:
            raise UsageError(f"--momentum is not a setting of {options.optimizer}; leave it out")
        settings["momentum"] = options.momentum
    return kind(model, **settings)


def make_schedule(options: argparse.Namespace, optimizer: Optimizer, steps: int) -> Schedule | None:
    """The schedule that the options name, for an epoch of that many steps; None for a constant rate.

    Its length is ``schedule_epochs``, which stays the same when a run is resumed with more epochs.
    """
    epochs = options.schedule_epochs
    total = steps * epochs
    if options.warmup and options.schedule != "cosine":
        raise UsageError(f"--warmup needs --schedule cosine, got {options.schedule}")
    if options.schedule in FIXED_LENGTH and epochs < options.epochs:
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
            has_momentum = hasattr(optimizer, "betas") or bool(getattr(optimizer, "momentum", 0.0))
            return OneCycleLR(optimizer, options.lr, total, cycle_momentum=has_momentum)
        case "step":
            return StepLR(optimizer, max(1, epochs // 3) * steps)
        case "exponential":
            # The rate falls to a hundredth. Rounded, because the last bit of a power differs between machines.
            return ExponentialLR(optimizer, round(0.01 ** (1.0 / total), 12))
        case "plateau":
            return ReduceLROnPlateau(optimizer, patience=3)
    return None


def require_classes(data: Dataset) -> None:
    """Raise `UsageError` for data of one class."""
    if data.classes < 2:
        raise UsageError(f"{data.name} has one class, {data.class_names[0]}; training needs at least two")


def make_loaders(options: argparse.Namespace, data: Dataset) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Batches of the training part, of the part by which the best epoch is chosen, and of the held-out part."""
    prepare = image_transform(options.augment, data.image, Normalise.of(data) if options.normalise else None)
    train = data.loader(options.batch, seed=options.seed, transform=prepare, drop_last=options.drop_last)
    # A batch that fits in memory in training fits in evaluation.
    others = (data.validation(options.batch, transform=prepare), data.held_out(options.batch, transform=prepare))
    return train, *others


def image_transform(names: Sequence[str], image: tuple[int, int, int], normalise: Normalise | None) -> Compose | None:
    """The transform of images ``(C, H, W)``: crop, flip, normalise, cut out, in this order; None if it is empty."""
    _, height, width = image
    steps = [
        PadAndCrop(max(1, min(height, width) // 8)) if "crop" in names else None,
        Flip() if "flip" in names else None,
        normalise,
        # Last: the square is filled with 0, which is then the mean.
        Cutout(max(1, min(height, width) // 4)) if "cutout" in names else None,
    ]
    chosen = [step for step in steps if step is not None]
    return Compose(*chosen) if chosen else None
