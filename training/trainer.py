"""The loop over epochs: steps, validation, checkpoints, early stopping, and what is shown meanwhile.

The device is read at the end of an epoch, for its sums, and a few times a second while progress is shown on a
terminal; a step reads one number at most (`training_step.py`).
"""

import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from math import isnan
from typing import Any

from ..backends import use_backend
from ..layers.core.grad_mode import by_mode
from .checkpoint_file import CheckpointError
from .consistency_checks import require_schedule_lasts, require_trainable
from .evaluation import evaluate
from .history import History
from .host_state import (
    average_state,
    load_average_state,
    load_model_state,
    model_state,
    model_streams,
    without_prefix,
)
from .interrupt import Interrupt, Interrupted
from .modes import in_training
from .one_sample_batches import require_no_one_sample_batch
from .progress import Progress
from .ranks.buffers import share_buffers
from .ranks.metrics import of_all_ranks
from .ranks.same_run import require_same
from .run import Run
from .running_metrics import as_lists, has_classes
from .saving import save
from .schedules.base import TimedSchedule
from .training_step import TrainingStep


class Trainer:
    """Trains a run to its end."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # Weights and buffers of the best epoch so far, with `restore_best`.
        self._best_weights: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._best_averages: dict[str, Any] = {}
        self._interrupt = Interrupt()
        # Whether it is to stop after this step, and whether any batch of the epoch has been measured.
        self._stops = self._is_measured = False
        unit = "images" if has_classes(run.loader) else "samples"
        start, shown = (run.epoch, run.batch), run.options.progress and run.group.is_root
        self._progress = Progress(run.epochs, len(run.loader), shown=shown, start=start, unit=unit)

    def train(self) -> History:
        """Train to the end.

        Raises
        ------
        ValueError
            Before the first step, if the schedule ends before the run does, or if there will be a batch of one sample
            and the model can't be trained on one.
        """
        run, options = self.run, self.run.options
        done = run.steps if options.schedule_each == "step" else run.epoch - 1
        require_schedule_lasts(run.schedule, options.schedule_each, len(run.loader), run.epochs, done)
        if run.epoch <= run.epochs:
            parts = (1,) * options.accumulate if options.accumulate > 1 else tuple(run.sizes)
            is_whole = options.accumulate == 1 and run.parts_are_exact
            parts = (1,) if is_whole else parts * run.group.size
            require_no_one_sample_batch(run.model, run.loader, parts, run.evaluated)
        with ExitStack() as stack:
            if run.checkpoints is not None:
                if run.group.is_root:
                    stack.enter_context(run.checkpoints)
                stack.enter_context(self._interrupt)
            stack.enter_context(use_backend(run.model.backend))
            stack.enter_context(in_training(run.model, run.evaluated))
            stack.enter_context(by_mode())
            stack.enter_context(self._progress)
            step = stack.enter_context(TrainingStep(run, self._progress.note))
            while run.epoch <= run.epochs and not self._is_early_stop():
                self._train_epoch(step)
            run.optimizer.zero_grad()
            if run.best.restore_best:
                self._restore_best()
        return run.history

    def _is_early_stop(self) -> bool:
        run, stopping = self.run, self.run.early_stopping
        if stopping is None or run.batch or not stopping.reached(run.history):
            return False
        best = run.history.rows[stopping.best(run.history)]
        self._progress.note(
            f"stopped early: {stopping.metric.replace('_', ' ')} has not improved for "
            f"{stopping.patience} epochs; best was epoch {best['epoch']}"
        )
        return True

    def _train_epoch(self, step: TrainingStep) -> None:
        run, progress = self.run, self._progress
        started, batches = time.perf_counter(), len(run.loader)
        # A parameter may have been replaced since the last epoch.
        require_trainable(run.model, run.optimizer, run.schedule)
        run.start_pass()
        every = run.checkpoints.every if run.checkpoints else None
        for x, target in run.loader.batches(run.model.backend, start=run.batch, share=run.share):
            samples = run.samples_of_step()
            step(x, target)
            run.batch += 1
            run.steps += 1
            progress.step(run.epoch, run.batch, samples, run.metrics.read)
            received = self._is_interrupted()
            if run.batch < batches and (received or (every and run.steps % every == 0)):
                now = time.perf_counter()
                run.seconds, started = run.seconds + now - started, now
                save(run)
                self._stop_if_interrupted()
        self._end_epoch(self._measured(step, started))

    def _measured(self, step: TrainingStep, started: float) -> dict[str, Any]:
        """The epoch's row of the history, validation included."""
        run = self.run
        share_buffers(run.model, run.group)
        trained = of_all_ranks(run.metrics, run.group)
        self._is_measured = trained.total is not None
        row = {"epoch": run.epoch, **trained.read("train_")}
        if run.schedule is not None:
            row["lr"] = run.optimizer.lr
        if run.options.on_nan == "skip":
            row["skipped"] = run.skipped
        if run.validation is not None:
            # Saved first, so that the epoch is not lost if evaluation fails.
            run.seconds, started = run.seconds + time.perf_counter() - started, time.perf_counter()
            save(run)
            ema = run.options.ema
            averaged: AbstractContextManager[object] = nullcontext() if ema is None else ema.applied()
            with step.without_warnings(), averaged:
                measured = evaluate(
                    run.model, run.validation, loss=run.loss, metrics=run.other_metrics, group=run.group
                )
            row |= {f"validation_{name}": value for name, value in measured.items()}
        # A matrix as lists, which a checkpoint gives back as they were.
        row = {name: as_lists(value) for name, value in row.items()}
        row["seconds"] = run.seconds + time.perf_counter() - started
        return run.group.of_root(row)

    def _end_epoch(self, row: dict[str, Any]) -> None:
        run, schedule, best = self.run, self.run.schedule, self.run.best
        run.history.append(row)
        if schedule is not None and not isinstance(schedule, TimedSchedule):
            # Its `step` reads a metric, and the base class defines none.
            schedule.step(row["validation_loss" if "validation_loss" in row else "train_loss"])  # type: ignore[attr-defined]
        elif isinstance(schedule, TimedSchedule) and run.options.schedule_each == "epoch":
            schedule.step()
        is_measured = self._is_measured or not best.metric.startswith("train_")
        run.next_epoch()
        if best.metric not in row and is_measured:
            raise ValueError(
                f"the metric of early_stopping must be a column of this run, {', '.join(row)}; got {best.metric!r}: an "
                "accuracy needs targets that are classes"
            )
        if best.restore_best and run.history.rows[best.best(run.history)] is row:
            self._best_weights = model_state(run.model)
            self._best_averages = average_state(run.options.ema)
        self._progress.epoch(row)
        save(run)
        if run.options.after_epoch is not None:
            before = run.changeable()
            run.options.after_epoch(run.history)
            after = run.changeable()
            require_same("after_epoch left", after, run.group)
            if before != after:
                # A run that resumes here does not call the function again.
                save(run)
        if run.epoch <= run.epochs and self._is_interrupted():
            self._stop_if_interrupted()

    def _is_interrupted(self) -> bool:
        """Whether any rank has received a signal, on which all stop after the same step."""
        run = self.run
        self._stops = run.checkpoints is not None and run.group.agree(self._interrupt.received or self._stops)[0]
        return self._stops

    def _stop_if_interrupted(self) -> None:
        run = self.run
        if self._stops:
            assert run.checkpoints is not None
            # A rank that ends now might end rank 0 while it still writes.
            run.group.barrier()
            where = run.checkpoints.folder
            raise Interrupted(f"interrupted in epoch {run.epoch} after step {run.steps}, which is saved in {where}")

    def _restore_best(self) -> None:
        """Load weights and buffers of the best epoch: from memory, or after a resume from a checkpoint."""
        run, best = self.run, self.run.best
        column = run.history[best.metric] if run.history.rows else []
        if all(isnan(value) for value in column):
            return
        row = run.history.rows[best.best(run.history)]
        named = best.metric.replace("_", " ")
        if row is not run.history.rows[-1]:
            saved, averages = self._best_weights, self._best_averages
            if saved is None:
                found = None if run.checkpoints is None or not run.group.is_root else run.checkpoints.best()
                found = run.group.of_root(found)
                if found is None or found.facts["history"][-1]["epoch"] != row["epoch"]:
                    raise CheckpointError(
                        f"the weights of epoch {row['epoch']}, the best by {named}, are in no checkpoint; the model "
                        f"has those of epoch {run.epoch - 1}"
                    )
                saved = without_prefix("model", found.arrays), found.facts["model"]
                averages = without_prefix("ema", found.arrays)
            arrays, facts = saved
            # Random streams keep their present positions.
            load_model_state(run.model, arrays, {**facts, "streams": model_streams(run.model)})
            load_average_state(run.options.ema, averages)
        self._progress.note(
            f"the weights are those of epoch {row['epoch']}, the best by {named} ({row[best.metric]:.6g})"
        )
