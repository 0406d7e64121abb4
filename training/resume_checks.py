"""Whether a checkpoint is of this run, so that the run may resume from it.

The state in a checkpoint replaces the new run's settings of the optimizer and its schedule, and the schedule's step. So
these are compared first, and nothing is loaded if they differ. Other settings that change the steps are compared too:
loss, clipping, parts of a batch. These may differ: the number of epochs (but see `_longer_schedule`), ``on_nan``,
patience, how many checkpoints are kept, and the backend.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .checkpoint_file import Checkpoint
from .host_state import groups_of
from .optimizers.saved_state import with_later
from .run import Run
from .run_settings import of_groups, optimizer_settings, plain, without_rate

ADVICE = (
    "go on with the model and settings of the saved run, or begin a new run in another folder, with these weights if "
    "they fit: model.load_state_dict(Checkpoints(folder).read({step}).weights)"
)

#: Losses whose class has another name in checkpoints that an earlier version wrote.
RENAMED_LOSSES = {
    "MeanSquaredError": "MSE",
    "MeanAbsoluteError": "MAE",
    "MeanAbsolutePercentageError": "MAPE",
    "MeanSquaredLogError": "MSLE",
}


def require_same_run(run: Run, found: Checkpoint) -> None:
    """Raise `ValueError`, which names all differences, unless ``found`` is a checkpoint of this run."""
    assert run.checkpoints is not None
    facts, about = found.facts, run.checkpoints.about
    was, now = {"metrics": [], "precision": "float32", **facts["settings"]}, run.own_settings()
    if was["loss"] != now["loss"]:
        kind, bracket, options = was["loss"].partition("(")
        was["loss"] = RENAMED_LOSSES.get(kind, kind) + bracket + options
    for name, fact in (("frozen parameters", "frozen"), ("layers in evaluation", "evaluated")):
        # Checkpoints of earlier versions have none. What was changed during the saved run counts as it was saved, too.
        was.setdefault(name, [])
        if plain(now[name]) == facts["model"].get(fact, []):
            was[name] = now[name]
    if was["optimizer"]["kind"] == now["optimizer"]["kind"]:
        # A setting that was changed during the saved run counts as it was saved, if this run has it so.
        current = optimizer_settings(run.optimizer, run.schedule)
        settings = [with_later(group, run.optimizer.settings) for group, _ in groups_of(facts["optimizer"])]
        saved = {**of_groups(settings), "kind": was["optimizer"]["kind"]}
        was["optimizer"] = with_later(was["optimizer"], current)
        same = [name for name in current if plain(current[name]) == saved.get(name)]
        was["optimizer"] = {**was["optimizer"], **{name: saved[name] for name in same}}
    if was["schedule"]["kind"] != now["schedule"]["kind"]:
        # The other schedule explains another rate.
        was["optimizer"], now["optimizer"] = without_rate(was["optimizer"]), without_rate(now["optimizer"])
    if was["accumulate"] != now["accumulate"]:
        was["shards"] = now["shards"]
    problems = list(_other_model(run, found.weights))
    problems += _differences(was, now)
    problems += _differences({name: facts["about"].get(name) for name in about}, about)
    if not problems:
        problems += _longer_schedule(run, facts["epochs"])
    if problems:
        raise ValueError(f"{'; '.join(problems)}; {ADVICE.format(step=found.step)}")
    begun = facts["epoch"] - (facts["batch"] == 0)
    if run.epochs < begun:
        raise ValueError(f"it is in epoch {begun}, and epochs is {run.epochs}; give at least {begun}")


def _other_model(run: Run, saved: Mapping[str, Any]) -> Iterator[str]:
    """What differs between the run's model and the arrays that were saved."""
    own = run.model.state_dict()
    yield from (f"missing {name}" for name in own if name not in saved)
    for name, array in saved.items():
        if name not in own:
            yield f"unknown {name}"
        elif tuple(own[name].shape) != array.shape:
            yield f"{name} has shape {array.shape}, expected {tuple(own[name].shape)}"


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two runs' settings, as text; groups of settings are mappings with a ``kind``."""
    for name, value in now.items():
        before = was.get(name)
        if isinstance(value, Mapping):
            before = before if isinstance(before, Mapping) else {}
            if before.get("kind") != value.get("kind"):
                yield _difference(name, before.get("kind"), value.get("kind"))
                continue
            for key in value:
                if plain(value[key]) != before.get(key):
                    label = key if key.startswith("schedule") else f"{name}'s {key}"
                    yield _difference(label, before.get(key), value[key])
        elif plain(value) != before:
            yield _difference(name, before, value)


def _longer_schedule(run: Run, epochs_before: int) -> Iterator[str]:
    """Why the run can't have more epochs than before, if its schedule has a fixed number of steps."""
    total = getattr(run.schedule, "total_steps", None)
    needed = run.epochs * (len(run.loader) if run.options.schedule_each == "step" else 1)
    if total is not None and run.epochs > epochs_before and needed > total:
        yield (
            f"its schedule {type(run.schedule).__name__} has {total} steps and {run.epochs} epochs need "
            f"{needed}: it can't be made longer later; use epochs={epochs_before}"
        )


def _difference(name: str, was: Any, now: Any) -> str:
    return f"its {name} was {_shown(was)}, this run's is {_shown(now)}"


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return repr(tuple(value))
    return str(value)
