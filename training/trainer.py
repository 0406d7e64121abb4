"""The training loop, and all that it keeps between two steps.

A `Trainer` is one run. What it is after a step, a checkpoint holds; a trainer put back to a checkpoint goes on to the
same bits as if it had never stopped. It reads one number a step from the device, the loss, and not even that with
``on_nan=None``; the sums of an epoch are read at its end, and for the person who watches a few times a second.
"""

import difflib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import isfinite, isnan, nan
from typing import Any

from ..backends import use_backend
from ..common import checks
from ..common.types import Array, dtype_name
from ..layers.core.layer import Layer
from ..layers.losses import Loss
from .checkpoint_file import Checkpoint, CheckpointError
from .checkpoints import Checkpoints
from .compatibility import require_predictions, require_targets, require_trainable
from .data_loader import DataLoader
from .early_stopping import EarlyStopping
from .evaluation import evaluate, in_mode
from .history import History
from .interrupt import Interrupt, Interrupted
from .nan_check import NumericalTrouble, Snapshot, is_of_the_library, locate
from .optimizers.base import Optimizer
from .optimizers.clipping import clip_grad_norm, clip_grad_value
from .out_of_memory import out_of_memory
from .progress import Progress
from .running_metrics import Tally, none_ignored
from .same_run import (
    ADVICE,
    differences,
    longer_schedule,
    loss_settings,
    optimizer_settings,
    plain,
    schedule_settings,
    without_rate,
)
from .schedules.base import Schedule, TimedSchedule
from .shards import Step, accumulate, in_parts_as_one, stepper
from .single_samples import require_no_single_sample
from .state import (
    load_model_state,
    load_optimizer_state,
    model_state,
    model_streams,
    optimizer_state,
    part,
    require_facts,
    require_optimizer_state,
    under,
)

# A run that skips every batch learns nothing and would go on for ever.
MOST_SKIPPED = 20
# Losses that are means, of which gradients of parts add up to that of the whole.
MEANS = ("mean", "batchmean")


@dataclass(eq=False)
class Trainer:
    """One run of training; see `fit` for what the arguments mean.

    All of them are checked before the first step; `run` looks at what can only be known with the model at work.

    Attributes
    ----------
    epoch : int
        The epoch that is going on, from 1.
    batch : int
        Steps done in it.
    steps : int
        Steps done in all.
    history : History
    """

    model: Layer
    loader: DataLoader
    loss: Loss
    optimizer: Optimizer
    epochs: int
    validation: DataLoader | None = None
    schedule: Schedule | None = None
    schedule_each: str = "step"
    sizes: Sequence[int] = (1,)
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    on_nan: str | None = None
    early_stopping: EarlyStopping | None = None
    checkpoints: Checkpoints | None = None
    after_epoch: Callable[[History], None] | None = None
    shown: bool = True
    is_usual_loss: bool = False

    def __post_init__(self) -> None:
        self._check()
        require_trainable(self.model, self.optimizer, self.schedule)
        require_targets(self.loss, self.loader, self.is_usual_loss)
        if self.validation is not None:
            require_targets(self.loss, self.validation, self.is_usual_loss)
        self._is_taught = False
        self.epoch, self.batch, self.steps = 1, 0, 0
        self.history = History()
        #: By which the best epoch is chosen.
        self.best = self.early_stopping or EarlyStopping(
            1, "train_loss" if self.validation is None else "validation_loss"
        )
        self._require_metric()
        self._best_weights: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._settings = plain(self._own_settings())
        self._none_ignored = none_ignored(self.loss, self.loader)
        self._tally = self._new_tally()
        self._quiet = self.on_nan is not None and is_of_the_library(self.model, self.loss, self.optimizer)
        self._skipped = self._skipped_in_a_row = 0
        self._first_pass = self.loader.epoch
        self._seconds = 0.0
        self._bar: Progress | None = None

    def _check(self) -> None:
        """Raise `TypeError` or `ValueError` for arguments of another kind or out of range."""
        checks.instance("model", self.model, Layer)
        checks.instance("loader", self.loader, DataLoader, "give nn.DataLoader(x, y)")
        checks.instance("loss", self.loss, Loss)
        if self.loss.reduction not in MEANS:
            raise ValueError(f"loss must have reduction='mean', got {self.loss!r}")
        checks.instance("optimizer", self.optimizer, Optimizer, "give one over the model, such as nn.Adam(model)")
        self.epochs = checks.integer("epochs", self.epochs, 1)
        if self.validation is not None:
            checks.instance("validation", self.validation, DataLoader, "give nn.DataLoader(x, y)")
        if self.schedule is not None:
            checks.instance("schedule", self.schedule, Schedule, "make one: nn.CosineLR(optimizer, total_steps)")
        checks.choice("schedule_each", self.schedule_each, ("step", "epoch"))
        self.accumulate = checks.integer("accumulate", self.accumulate, 1)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                setattr(self, name, checks.number(name, getattr(self, name), above=0.0))
        checks.choice("on_nan", self.on_nan, ("stop", "skip", None))
        if self.early_stopping is not None:
            checks.instance(
                "early_stopping", self.early_stopping, EarlyStopping, "give a number of epochs, or one of these"
            )
        if self.checkpoints is not None:
            checks.instance("checkpoints", self.checkpoints, Checkpoints, "give a folder's path, or one of these")
        if self.after_epoch is not None and not callable(self.after_epoch):
            raise TypeError(f"after_epoch must be a function of the history, got {checks.shown(self.after_epoch)}")
        self.shown = checks.flag("progress", self.shown)
        self.loader.require_batches()

    def columns(self) -> list[str]:
        """The columns that the history will have; an accuracy only if predictions turn out to be scores of classes."""

        def measured(prefix: str, loader: DataLoader) -> list[str]:
            classes = dtype_name(loader.arrays[1].dtype).startswith(("int", "uint"))
            return [f"{prefix}_loss", *([f"{prefix}_accuracy"] if classes else [])]

        return [
            "epoch",
            *measured("train", self.loader),
            *(["lr"] if self.schedule is not None else []),
            *(["skipped"] if self.on_nan == "skip" else []),
            *(measured("validation", self.validation) if self.validation is not None else []),
            "seconds",
        ]

    def _require_metric(self) -> None:
        metric, columns = self.best.metric, self.columns()
        if metric not in columns:
            close = difflib.get_close_matches(metric, columns, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            if metric.startswith("validation_") and self.validation is None:
                hint = "; give validation data, or name one of these"
            raise ValueError(
                f"early_stopping looks at {metric!r}, and the columns of this run are {', '.join(columns)}{hint}"
            )

    def _new_tally(self) -> Tally:
        return Tally(self.model.backend, self.loss, none_ignored=self._none_ignored)

    def run(self) -> History:
        """Train to the end.

        Raises
        ------
        ValueError
            Before the first step, where a schedule ends before the run does, or the model can't take a batch of one
            sample and there will be one.
        """
        model, b = self.model, self.model.backend
        self._require_steps()
        if self.epoch <= self.epochs:
            as_one = self.accumulate == 1 and in_parts_as_one(model, self.loss)
            parts = (1,) * self.accumulate if self.accumulate > 1 else self.sizes
            require_no_single_sample(model, self.loader, (1,) if as_one else parts)
        with ExitStack() as stack:
            if self.checkpoints is not None:
                stack.enter_context(self.checkpoints)
            interrupt = stack.enter_context(Interrupt()) if self.checkpoints is not None else Interrupt()
            stack.enter_context(use_backend(b))
            stack.enter_context(in_mode(model, True))
            self._bar = stack.enter_context(
                Progress(self.epochs, len(self.loader), shown=self.shown, start=(self.epoch, self.batch))
            )
            step = stack.enter_context(self._stepper())
            while self.epoch <= self.epochs and not self._is_enough():
                self._train_epoch(step, interrupt)
            self.optimizer.zero_grad()
            if self.best.restore_best:
                self._restore_best()
        return self.history

    def _require_steps(self) -> None:
        """Raise `ValueError` where the schedule comes to an end, or to a rate of 0, before the run does."""
        schedule = self.schedule
        if not isinstance(schedule, TimedSchedule):
            return
        each, total = self.schedule_each, getattr(schedule, "total_steps", None)
        if total is None or not (schedule.ends or schedule.rate(total) == 0.0):
            return
        left = self.epochs * len(self.loader) - self.steps if each == "step" else self.epochs - self.epoch + 1
        if left > total - schedule.taken:
            rest = "" if schedule.ends else ", or with a minimum above 0: the rate would be 0 for the rest"
            raise ValueError(
                f"{type(schedule).__name__} is laid out for {total} steps, {schedule.taken} of them taken, and this "
                f"run takes {left} ({self.epochs} epochs of {len(self.loader)} batches, one {each} each): make it with "
                f"total_steps={schedule.taken + left}{rest}"
            )

    def _restore_best(self) -> None:
        """Put back weights and buffers of the best epoch, kept in memory or, of before a resume, in a checkpoint."""
        column = self.history[self.best.metric] if self.history.rows else []
        if all(isnan(value) for value in column):
            return
        row = self.history.rows[self.best.best(self.history)]
        named = self.best.metric.replace("_", " ")
        if row is not self.history.rows[-1]:
            kept = self._best_weights
            if kept is None:
                found = None if self.checkpoints is None else self.checkpoints.best()
                if found is None or found.facts["history"][-1]["epoch"] != row["epoch"]:
                    raise CheckpointError(
                        f"the weights of epoch {row['epoch']}, the best by {named}, are in no checkpoint; the model "
                        f"has those of epoch {self.epoch - 1}"
                    )
                kept = part("model", found.arrays), found.facts["model"]
            arrays, facts = kept
            # Random streams go on from where they are.
            load_model_state(self.model, arrays, {**facts, "streams": model_streams(self.model)})
        self._note(f"the weights are those of epoch {row['epoch']}, the best by {named} ({row[self.best.metric]:.6g})")

    @contextmanager
    def _stepper(self) -> Iterator[Step]:
        if self.accumulate > 1:
            yield partial(accumulate, self.model, self.loss, (1,) * self.accumulate)
        else:
            with stepper(self.model, self.loss, self.sizes) as step:
                yield step

    def _is_enough(self) -> bool:
        if self.early_stopping is None or self.batch or not self.early_stopping.reached(self.history):
            return False
        best = self.history.rows[self.early_stopping.best(self.history)]
        self._note(
            f"stopped early: {self.early_stopping.metric.replace('_', ' ')} has not improved for "
            f"{self.early_stopping.patience} epochs; best was epoch {best['epoch']}"
        )
        return True

    def _train_epoch(self, step: Step, interrupt: Interrupt) -> None:
        started, batches, bar = time.perf_counter(), len(self.loader), self._bar
        assert bar is not None
        # A parameter may have been replaced since.
        require_trainable(self.model, self.optimizer, self.schedule)
        self.loader.epoch = self._first_pass + self.epoch - 1
        every = self.checkpoints.every if self.checkpoints else None
        for x, target in self.loader.batches(self.model.backend, start=self.batch):
            self._take(step, x, target)
            self.batch += 1
            self.steps += 1
            bar.step(self.epoch, self.batch, int(x.shape[0]), self._tally.read)
            if self.batch < batches and (interrupt.asked or (every and self.steps % every == 0)):
                now = time.perf_counter()
                self._seconds, started = self._seconds + now - started, now
                self._save()
                self._stop_if(interrupt)
        row = {"epoch": self.epoch, **self._tally.read("train_")}
        if self.schedule is not None:
            row["lr"] = self.optimizer.lr
        if self.on_nan == "skip":
            row["skipped"] = self._skipped
        if self.validation is not None:
            # What was trained is not lost if evaluation fails.
            self._seconds, started = self._seconds + time.perf_counter() - started, time.perf_counter()
            self._save()
            with self._unwarned():
                measured = evaluate(self.model, self.validation, loss=self.loss)
            row |= {f"validation_{name}": value for name, value in measured.items()}
        row["seconds"] = self._seconds + time.perf_counter() - started
        self._end_epoch(row)
        bar.epoch(row)
        self._save()
        if self.after_epoch is not None:
            self.after_epoch(self.history)
        if self.epoch <= self.epochs:
            self._stop_if(interrupt)

    def _end_epoch(self, row: dict[str, float]) -> None:
        self.history.append(row)
        if self.schedule is not None and not isinstance(self.schedule, TimedSchedule):
            self.schedule.step(row["validation_loss" if "validation_loss" in row else "train_loss"])  # type: ignore[attr-defined]
        elif isinstance(self.schedule, TimedSchedule) and self.schedule_each == "epoch":
            self.schedule.step()
        self.epoch, self.batch, self._seconds = self.epoch + 1, 0, 0.0
        measured = self._tally.total is not None or not self.best.metric.startswith("train_")
        self._tally, self._skipped = self._new_tally(), 0
        if self.best.metric not in row and measured:
            raise ValueError(
                f"early_stopping looks at {self.best.metric!r}, and this run measures {', '.join(row)}: an accuracy "
                "needs targets that are classes"
            )
        if self.best.restore_best and self.history.rows[self.best.best(self.history)] is row:
            self._best_weights = model_state(self.model)

    def _take(self, step: Step, x: Array, target: Array) -> None:
        """One step: forward, backward, update."""
        with self._unwarned():
            self._step(step, x, target)

    def _unwarned(self) -> AbstractContextManager[None]:
        """Who is told of a loss that is NaN need not hear of each operation that it went through."""
        return self.model.backend.unwarned() if self._quiet else nullcontext()

    def _step(self, step: Step, x: Array, target: Array) -> None:
        model, b = self.model, self.model.backend
        before = None if self.on_nan is None and self._is_taught else Snapshot(model)
        self.optimizer.zero_grad()
        try:
            value, prediction = step(x, target)
        except Exception as error:
            if b.is_out_of_memory(error):
                raise out_of_memory(error, model, self.loss, x, target) from None
            raise
        if before is not None and not self._is_taught:
            try:
                require_predictions(self.loss, prediction, self.loader)
            except ValueError:
                before.restore()
                self.optimizer.zero_grad()
                raise
            self._is_taught = True
        if before is not None and self.on_nan is not None:
            value = float(b.to_numpy(value))
            if not isfinite(value):
                if self._counts(prediction, target):
                    before.restore()
                    self._in_trouble(value, x, target)
                    return
                value = 0.0
            self._skipped_in_a_row = 0
        if self.clip_norm is not None:
            clip_grad_norm(self.optimizer.parameters, self.clip_norm)
        if self.clip_value is not None:
            clip_grad_value(self.optimizer.parameters, self.clip_value)
        self.optimizer.step()
        if isinstance(self.schedule, TimedSchedule) and self.schedule_each == "step":
            self.schedule.step()
        self._tally.add(value, prediction, target)

    def _counts(self, prediction: Array, target: Array) -> bool:
        """Whether any target of a batch counts; else the mean is NaN, its gradient 0, and the batch adds nothing."""
        counted = self.loss.counted(prediction, target, none_ignored=self._none_ignored)
        return bool((counted if isinstance(counted, float) else float(self.model.backend.to_numpy(counted))) != 0.0)

    def _in_trouble(self, value: float, x: Array, target: Array) -> None:
        """A loss that is no number: stop, or pass over the batch."""
        self.optimizer.zero_grad()
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self.on_nan == "stop" or self._skipped_in_a_row >= MOST_SKIPPED:
            raise NumericalTrouble(self.steps + 1, self.epoch, locate(self.model, self.loss, x, target))
        self._note(f"epoch {self.epoch}, step {self.steps + 1}: the loss is {value}; batch skipped")

    def _note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.note(text)

    def _stop_if(self, interrupt: Interrupt) -> None:
        if interrupt.asked:
            assert self.checkpoints is not None
            where = self.checkpoints.folder
            raise Interrupted(f"interrupted in epoch {self.epoch} after step {self.steps}, which is saved in {where}")

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        arrays, facts = self.state_dict()
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not (abs(array) < float("inf")).all():
                raise CheckpointError(
                    f"no checkpoint of step {self.steps}: {name} holds NaN or infinity; begin a new run from the "
                    "weights of an earlier one (Checkpoint.weights), with a lower learning rate or gradient clipping"
                )
        score = None
        if self.batch == 0:
            value = self.best.sign * self.history.rows[-1].get(self.best.metric, nan)
            score = None if isnan(value) else value
        self.checkpoints.write(self.steps, arrays, facts, score)

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All that the run is, after a step: host arrays by name, and what is no array."""
        weights, model = model_state(self.model)
        remembered, optimizer = optimizer_state(self.optimizer)
        arrays = {**under("model", weights), **under("optimizer", remembered)}
        return arrays, {
            "about": self.checkpoints.about if self.checkpoints else {},
            "backend": self.model.backend.spec,
            "numerics": self.model.backend.numerics,
            "model": model,
            "optimizer": optimizer,
            "schedule": None
            if self.schedule is None
            else {"kind": type(self.schedule).__name__, "state": self.schedule.state_dict()},
            "loader": self.loader.state_dict(),
            "first_pass": self._first_pass,
            "epochs": self.epochs,
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "seconds": self._seconds,
            "skipped": [self._skipped, self._skipped_in_a_row],
            "tally": self._tally.state_dict(),
            "settings": self._settings,
            "history": self.history.rows,
        }

    def resume_newest(self, note: Callable[[str], None] | None = None) -> Checkpoint | None:
        """Put the run back to the newest good checkpoint; None where there is none at all."""
        assert self.checkpoints is not None
        with self.checkpoints as checkpoints:
            found = checkpoints.newest(note or partial(print, file=sys.stderr))
        if found is not None:
            self.resume(found)
        return found

    def resume(self, found: Checkpoint) -> None:
        """Put the run back to a checkpoint.

        Raises
        ------
        CheckpointError
            If it is of another run: of another model, optimizer, loss or schedule, of other settings of these, of other
            clipping, data or batch size, or of a schedule that is laid out for fewer epochs. All that differs in the
            settings is named, and nothing is replaced.
        """
        facts, arrays, pass_before = found.facts, found.arrays, self.loader.epoch
        try:
            require_facts(facts)
        except ValueError as error:
            raise CheckpointError(f"{found.path} is damaged: {error}") from error
        try:
            self._require_same(found)
            if part("model", arrays).keys() == self.model.state_dict().keys():
                # Of another model that model's names are told, below.
                require_optimizer_state(self.optimizer, part("optimizer", arrays), facts["optimizer"])
            self.loader.load_state_dict(facts["loader"])
            load_model_state(self.model, part("model", arrays), facts["model"])
            load_optimizer_state(self.optimizer, part("optimizer", arrays), facts["optimizer"])
            if self.schedule is not None:
                self.schedule.load_state_dict(facts["schedule"]["state"])
                # What a schedule sets follows from its place, and was saved with the optimizer to the last bit.
                load_optimizer_state(self.optimizer, part("optimizer", arrays), facts["optimizer"])
            self._first_pass = facts["first_pass"]
            self.epoch, self.batch, self.steps = facts["epoch"], facts["batch"], facts["steps"]
            self._seconds = facts["seconds"]
            self._skipped, self._skipped_in_a_row = facts["skipped"]
            self._tally = self._new_tally()
            self._tally.load_state_dict(facts["tally"])
            self.history = History.from_rows(facts["history"])
            # A later resume compares with how the run began.
            self._settings = facts["settings"]
        except KeyError as error:
            self.loader.epoch = pass_before
            raise CheckpointError(f"{found.path} is damaged: it has no {error}") from error
        except (ValueError, TypeError) as error:
            self.loader.epoch = pass_before
            raise CheckpointError(f"{found.path} is not of this run: {error}") from error

    def _own_settings(self) -> dict[str, Any]:
        """What another run must have in common to go on from this one's checkpoints."""
        as_one = self.accumulate > 1 or in_parts_as_one(self.model, self.loss)
        return {
            "numerics": self.model.backend.numerics,
            "optimizer": {
                "kind": type(self.optimizer).__name__,
                **optimizer_settings(self.optimizer, self.schedule),
            },
            "schedule": schedule_settings(self.schedule, self.schedule_each),
            "loss": loss_settings(self.loss),
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "accumulate": self.accumulate,
            # Parts of which the bits of the whole come out may be others.
            "shards": None if as_one else list(self.sizes),
            "metric of the best epoch": f"{self.best.metric} ({'most' if self.best.sign > 0 else 'least'})",
        }

    def _require_same(self, found: Checkpoint) -> None:
        assert self.checkpoints is not None
        facts, about = found.facts, self.checkpoints.about
        was, now = dict(facts["settings"]), self._own_settings()
        if was["optimizer"]["kind"] == now["optimizer"]["kind"]:
            # Who set a rate or the like on the way and goes on with the same optimizer has it as it was saved.
            moved = optimizer_settings(self.optimizer, self.schedule)
            saved = {**facts["optimizer"]["settings"], "kind": was["optimizer"]["kind"]}
            same = [name for name in moved if plain(moved[name]) == saved.get(name)]
            was["optimizer"] = {**was["optimizer"], **{name: saved[name] for name in same}}
        if was["schedule"]["kind"] != now["schedule"]["kind"]:
            # Who has a schedule leaves the rate to it, and that says enough.
            was["optimizer"], now["optimizer"] = without_rate(was["optimizer"]), without_rate(now["optimizer"])
        if was["accumulate"] != now["accumulate"]:
            was["shards"] = now["shards"]
        problems = list(self._other_model(found.weights))
        problems += differences(was, now)
        problems += differences({name: facts["about"].get(name) for name in about}, about)
        if not problems:
            batches, before = len(self.loader), facts["epochs"]
            problems += longer_schedule(self.schedule, self.schedule_each, batches, self.epochs, before)
        if problems:
            raise ValueError(f"{'; '.join(problems)}; {ADVICE.format(step=found.step)}")
        begun = facts["epoch"] - (facts["batch"] == 0)
        if self.epochs < begun:
            raise ValueError(f"it is in epoch {begun}, and epochs is {self.epochs}; give at least {begun}")

    def _other_model(self, saved: Mapping[str, Any]) -> Iterator[str]:
        """What differs between this model's arrays and those that were saved."""
        own = self.model.state_dict()
        yield from (f"missing {name}" for name in own if name not in saved)
        for name, array in saved.items():
            if name not in own:
                yield f"unknown {name}"
            elif tuple(own[name].shape) != array.shape:
                yield f"{name} has shape {array.shape}, expected {tuple(own[name].shape)}"
