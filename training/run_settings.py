"""Settings of a run that a checkpoint records, so that a resumed run can be compared with it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..layers.core.layer import Layer
from ..layers.losses import Loss
from ..layers.losses.loss_weights import LossWeights
from .optimizers import Optimizer
from .schedules.base import Schedule, TimedSchedule


def optimizer_settings(optimizer: Optimizer, schedule: Schedule | None) -> dict[str, Any]:
    """Settings of an optimizer, those of all its groups, without those that the schedule sets."""
    groups = [optimizer.settings_of(group) for group in optimizer.param_groups]
    for found in groups:
        if schedule is not None:
            found.pop("lr", None)
        if getattr(schedule, "cycle_momentum", False):
            if "betas" in found:
                found["betas"] = found["betas"][1:]
            else:
                found.pop("momentum", None)
    return of_groups(groups)


def of_groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of all groups by name; those of several as ``lr of group 1``, and the number of groups."""
    if len(groups) == 1:
        return dict(groups[0])
    named = {f"{name} of group {i}": value for i, group in enumerate(groups) for name, value in group.items()}
    return {"groups": len(groups), **named}


def without_rate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's settings, without those that any schedule may set."""
    return {name: value for name, value in settings.items() if name.split()[0] not in ("lr", "betas", "momentum")}


def schedule_settings(schedule: Schedule | None, each: str) -> dict[str, Any]:
    """Class and settings of a schedule, what it counts, and the rate that it starts from (one for each group)."""
    if schedule is None:
        return {"kind": None}
    settings = {name: getattr(schedule, name) for name in schedule.settings}
    # With a highest rate of its own the schedule ignores the optimizer's.
    if "max_lr" not in settings:
        rates = getattr(schedule, "base_lrs", [getattr(schedule, "base_lr", None)])
        settings["base_lr"] = rates[0] if len(rates) == 1 else rates
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
