"""Settings of a run that a checkpoint records, so that a resumed run can be compared with it."""

import json
from collections.abc import Mapping
from typing import Any

from ..layers.core.layer import Layer
from ..layers.losses import Loss
from ..layers.losses.loss_weights import LossWeights
from .optimizers import Optimizer
from .schedules.base import Schedule, TimedSchedule


def optimizer_settings(optimizer: Optimizer, schedule: Schedule | None) -> dict[str, Any]:
    """Settings of an optimizer, without those that the schedule sets."""
    found = {name: getattr(optimizer, name) for name in optimizer.settings}
    if schedule is not None:
        found.pop("lr", None)
    if getattr(schedule, "cycle_momentum", False):
        if "betas" in found:
            found["betas"] = found["betas"][1:]
        else:
            found.pop("momentum", None)
    return found


def without_rate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's settings, without those that any schedule may set."""
    return {name: value for name, value in settings.items() if name not in ("lr", "betas", "momentum")}


def schedule_settings(schedule: Schedule | None, each: str) -> dict[str, Any]:
    """Class and settings of a schedule, what it counts, and the rate that it starts from."""
    if schedule is None:
        return {"kind": None}
    settings = {name: getattr(schedule, name) for name in schedule.settings}
    # With a highest rate of its own the schedule ignores the optimizer's.
    if "max_lr" not in settings:
        settings["base_lr"] = getattr(schedule, "base_lr", None)
    if isinstance(schedule, TimedSchedule):
        settings["schedule_each"] = each
    return {"kind": type(schedule).__name__, **settings}


def loss_settings(loss: Loss) -> str:
    """The loss as text; weights that are too many to show by their SHA-256."""
    weights = [value for _, value in sorted(vars(loss).items()) if isinstance(value, LossWeights)]
    return " ".join([repr(loss), *(value.digest() for value in weights if repr(value).startswith("<"))])


def frozen_parameters(model: Layer) -> list[str]:
    """Full names of the parameters that require no gradient."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def plain(value: Any) -> Any:
    """The value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=float))
