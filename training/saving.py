"""A run to and from a checkpoint.

Two runs that are equal in `state_dict` continue with the same bits: parameters and buffers, state of optimizer and
schedule, positions of the random streams, of the pass over the data and of the sums within it. What is not in it is not
part of a run.
"""

import sys
from collections.abc import Callable
from functools import partial
from math import isnan, nan
from typing import Any

from .checkpoint_file import Checkpoint, CheckpointError
from .history import History
from .host_state import (
    average_state,
    load_average_state,
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
    require_facts,
    require_optimizer_state,
    with_prefix,
    without_prefix,
)
from .modes import layers_in_evaluation, set_modes
from .ranks.metrics import of_all_ranks
from .resume_checks import require_same_run
from .run import Run
from .run_settings import frozen_parameters
from .running_metrics import RunningMetrics

#: Seconds for which other ranks wait for a checkpoint to be written or read, beside the timeout of the group.
WRITING = 600.0


def save(run: Run) -> None:
    """Write a checkpoint, if the run has a folder for them.

    Raises
    ------
    CheckpointError
        If an array holds NaN or infinity.
    """
    if run.checkpoints is None:
        return
    metrics = of_all_ranks(run.metrics, run.group)
    if run.group.is_root:
        with run.group.allowing(WRITING):
            _write(run, metrics)


def _write(run: Run, metrics: RunningMetrics) -> None:
    assert run.checkpoints is not None
    arrays, facts = state_dict(run, metrics)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not (abs(array) < float("inf")).all():
            raise CheckpointError(
                f"no checkpoint of step {run.steps}: {name} holds NaN or infinity; begin a new run from the "
                "weights of an earlier one (Checkpoint.weights), with a lower learning rate or gradient clipping"
            )
    score = None
    if run.batch == 0:
        value = run.best.sign * run.history.rows[-1].get(run.best.metric, nan)
        score = None if isnan(value) else value
    run.checkpoints.write(run.steps, arrays, facts, score)


def state_dict(run: Run, metrics: RunningMetrics) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that a run is, after a step, with the metrics of all ranks: host arrays by name, facts as plain values."""
    weights, model = model_state(run.model)
    model |= {"frozen": frozen_parameters(run.model), "evaluated": layers_in_evaluation(run.model)}
    state, optimizer = optimizer_state(run.optimizer)
    averages = average_state(run.options.ema)
    arrays = {**with_prefix("model", weights), **with_prefix("optimizer", state), **with_prefix("ema", averages)}
    return arrays, {
        "about": run.checkpoints.about if run.checkpoints else {},
        "backend": run.model.backend.spec,
        "numerics": run.model.backend.numerics,
        "model": model,
        "optimizer": optimizer,
        "schedule": None
        if run.schedule is None
        else {"kind": type(run.schedule).__name__, "state": run.schedule.state_dict()},
        "loader": run.loader.state_dict(),
        "first_pass": run.first_pass,
        "epochs": run.epochs,
        "epoch": run.epoch,
        "batch": run.batch,
        "steps": run.steps,
        "seconds": run.seconds,
        "skipped": [run.skipped, run.skipped_in_a_row],
        **({} if run.scaler is None else {"loss_scale": run.scaler.state_dict()}),
        "tally": metrics.state_dict(),
        "settings": run.settings,
        "history": run.history.rows,
    }


def resume_newest(run: Run, note: Callable[[str], None] | None = None) -> Checkpoint | None:
    """Restore the newest checkpoint that is not damaged, and return it; None if there is no checkpoint."""
    assert run.checkpoints is not None
    found = None
    if run.group.is_root:
        with run.group.allowing(WRITING), run.checkpoints as checkpoints:
            found = checkpoints.newest(note or partial(print, file=sys.stderr))
    # Other ranks may not see the files of rank 0.
    found = run.group.of_root(found)
    if found is not None:
        resume(run, found)
    return found


def resume(run: Run, found: Checkpoint) -> None:
    """Restore a checkpoint.

    Raises
    ------
    CheckpointError
        If it is of another run: of another model, optimizer, loss or schedule, of other settings of these, of other
        clipping, data or batch size, or of a schedule made for fewer epochs. The message names all settings that
        differ, and nothing is replaced.
    """
    facts, arrays, epoch_before = found.facts, found.arrays, run.loader.epoch
    try:
        require_facts(facts)
    except ValueError as error:
        raise CheckpointError(f"{found.path} is damaged: {error}") from error
    try:
        require_same_run(run, found)
        weights, state = without_prefix("model", arrays), without_prefix("optimizer", arrays)
        if weights.keys() == run.model.state_dict().keys():
            # Else `load_model_state` names what is missing or unknown.
            require_optimizer_state(run.optimizer, state, facts["optimizer"])
        run.loader.load_state_dict(facts["loader"])
        load_model_state(run.model, weights, facts["model"])
        frozen, run.evaluated = set(facts["model"].get("frozen", ())), facts["model"].get("evaluated", [])
        for name, parameter in run.model.named_parameters():
            parameter.requires_grad = name not in frozen
        if run.model.training:
            set_modes(run.model, run.evaluated)
        load_optimizer_state(run.optimizer, state, facts["optimizer"])
        load_average_state(run.options.ema, without_prefix("ema", arrays))
        if run.schedule is not None:
            run.schedule.load_state_dict(facts["schedule"]["state"])
            # That set the optimizer's rate by its formula; the rate in the checkpoint is right to the last bit.
            load_optimizer_state(run.optimizer, state, facts["optimizer"])
        run.first_pass = facts["first_pass"]
        run.epoch, run.batch, run.steps = facts["epoch"], facts["batch"], facts["steps"]
        run.seconds = facts["seconds"]
        run.skipped, run.skipped_in_a_row = facts["skipped"]
        if run.scaler is not None:
            run.scaler.load_state_dict(facts["loss_scale"])
        run.metrics = run.new_metrics()
        if run.group.is_root or run.parts_are_exact:
            # In fast numerics each rank has the sums of its own samples; those before are counted once.
            run.metrics.load_state_dict(facts["tally"])
        run.history = run.with_modes(History.from_rows(facts["history"]))
        run.settings = facts["settings"]
    except KeyError as error:
        run.loader.epoch = epoch_before
        raise CheckpointError(f"{found.path} is damaged: it has no {error}") from error
    except (ValueError, TypeError) as error:
        run.loader.epoch = epoch_before
        raise CheckpointError(f"{found.path} is not of this run: {error}") from error
