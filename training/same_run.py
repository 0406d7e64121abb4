"""What two runs must have in common for one to go on from the other's checkpoint.

A checkpoint's state takes the place of what a new run was given: settings of the optimizer, of its schedule, the place
in it. So they are compared first, and where they differ nothing is loaded. Compared too is what is no state and decides
on the steps: the loss, clipping, the parts of a batch. What may differ is the number of epochs (but see
`longer_schedule`), ``on_nan``, patience, how checkpoints are kept, and the backend.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..layers.losses import Loss
from ..layers.losses.loss_weights import LossWeights
from .optimizers.base import Optimizer
from .schedules.base import Schedule, TimedSchedule

ADVICE = (
    "go on with the model and settings of the saved run, or begin a new run in another folder, with these weights if "
    "they fit: model.load_state_dict(Checkpoints(folder).read({step}).weights)"
)


def optimizer_settings(optimizer: Optimizer, schedule: Schedule | None) -> dict[str, Any]:
    """Settings of an optimizer but for those that the schedule moves."""
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
    """An optimizer's settings but for what a schedule may move."""
    return {name: value for name, value in settings.items() if name not in ("lr", "betas", "momentum")}


def schedule_settings(schedule: Schedule | None, each: str) -> dict[str, Any]:
    """Kind and settings of a schedule, what it counts, and the rate that it starts from."""
    if schedule is None:
        return {"kind": None}
    settings = {name: getattr(schedule, name) for name in schedule.settings}
    # That one goes by its own highest rate.
    if "max_lr" not in settings:
        settings["base_lr"] = getattr(schedule, "base_lr", None)
    if isinstance(schedule, TimedSchedule):
        settings["schedule_each"] = each
    return {"kind": type(schedule).__name__, **settings}


def loss_settings(loss: Loss) -> str:
    """The loss in words, many weights by their SHA-256."""
    weights = [value for _, value in sorted(vars(loss).items()) if isinstance(value, LossWeights)]
    return " ".join([repr(loss), *(value.digest() for value in weights if repr(value).startswith("<"))])


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=float))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two runs' settings, in words; groups of settings are mappings with a ``kind``."""
    for name, value in now.items():
        before = was.get(name)
        if isinstance(value, Mapping):
            before = before if isinstance(before, Mapping) else {}
            if before.get("kind") != value.get("kind"):
                yield _told(name, before.get("kind"), value.get("kind"))
                continue
            for key in value:
                if plain(value[key]) != before.get(key):
                    yield _told(key if key.startswith("schedule") else f"{name}'s {key}", before.get(key), value[key])
        elif plain(value) != before:
            yield _told(name, before, value)


def longer_schedule(schedule: Schedule | None, each: str, batches: int, epochs: int, before: int) -> Iterator[str]:
    """What is wrong with going on for more epochs than ``before`` where a schedule is laid out for fewer steps."""
    total = getattr(schedule, "total_steps", None)
    needed = epochs * (batches if each == "step" else 1)
    if total is not None and epochs > before and needed > total:
        yield (
            f"its schedule {type(schedule).__name__} is laid out for {total} steps and {epochs} epochs take {needed}: "
            f"it can't be made longer on the way; go on with epochs={before}"
        )


def _told(name: str, was: Any, now: Any) -> str:
    return f"its {name} was {_shown(was)}, this run's is {_shown(now)}"


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return repr(tuple(value))
    return str(value)
