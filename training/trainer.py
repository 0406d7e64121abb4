"""The training loop, and all that it keeps between two steps.

A `Trainer` is one run. What it is after a step, a checkpoint holds; a trainer put back to a checkpoint goes on to the
same bits as if it had never stopped. It reads one number a step from the device, the loss, and not even that with
``on_nan=None``; the sums of an epoch are read at its end, and for the person who watches a few times a second.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

from ..backends import use_backend
from ..backends.types import Array
from ..layers.base import Layer
from ..layers.losses import Loss
from .agreement import require_predictions, require_targets, require_trainable
from .checkpoints import Checkpoint, CheckpointError, Checkpoints
from .clipping import clip_grad_norm, clip_grad_value
from .data import DataLoader
from .early_stopping import EarlyStopping
from .evaluation import evaluate, in_mode
from .history import History
from .interrupt import Interrupt, Interrupted
from .optimizer import Optimizer
from .progress import Progress
from .room import out_of_memory
from .schedule import Schedule, TimedSchedule
from .shards import Step, accumulate, stepper
from .state import (
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
    part,
    require_facts,
    require_optimizer_state,
    under,
)
from .tally import Tally
from .trouble import NumericalTrouble, Snapshot, locate

# A run that skips every batch learns nothing and would go on for ever.
MOST_SKIPPED = 20


@dataclass(eq=False)
class Trainer:
    """One run of training; see `fit` for what the arguments mean.

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
        require_trainable(self.model, self.optimizer, self.schedule)
        require_targets(self.loss, self.loader, self.is_usual_loss)
        if self.validation is not None:
            require_targets(self.loss, self.validation, self.is_usual_loss)
        self._is_taught = False
        self.epoch, self.batch, self.steps = 1, 0, 0
        self.history = History()
        self._tally = Tally(self.model.backend)
        self._skipped = self._skipped_in_a_row = 0
        self._first_pass = self.loader.epoch
        self._seconds = 0.0
        self._bar: Progress | None = None

    def run(self) -> History:
        """Train to the end."""
        model, b = self.model, self.model.backend
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
        return self.history

    @contextmanager
    def _stepper(self) -> Iterator[Step]:
        if self.accumulate > 1:
            yield partial(accumulate, self.model, self.loss, (1,) * self.accumulate)
        else:
            with stepper(self.model, self.loss, self.sizes) as step:
                yield step

    def _is_enough(self) -> bool:
        if self.early_stopping is None or not self.early_stopping.reached(self.history):
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
        self._tally, self._skipped = Tally(self.model.backend), 0

    def _take(self, step: Step, x: Array, target: Array) -> None:
        """One step: forward, backward, update."""
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
                before.restore()
                self._in_trouble(value, x, target)
                return
            self._skipped_in_a_row = 0
        if self.clip_norm is not None:
            clip_grad_norm(self.optimizer.parameters, self.clip_norm)
        if self.clip_value is not None:
            clip_grad_value(self.optimizer.parameters, self.clip_value)
        self.optimizer.step()
        if isinstance(self.schedule, TimedSchedule) and self.schedule_each == "step":
            self.schedule.step()
        self._tally.add(value, prediction, target)

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
                    f"no checkpoint of step {self.steps}: {name} holds NaN or infinity; an earlier one can be resumed "
                    "with a lower learning rate or gradient clipping"
                )
        score = None
        if self.batch == 0:
            row = self.history.rows[-1]
            names = ("validation_accuracy", "validation_loss", "train_loss")
            metric = next((name for name in names if name in row), "train_loss")
            score = row[metric] if metric.endswith("accuracy") else -row[metric]
        self.checkpoints.write(self.steps, arrays, facts, score)

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All that the run is, after a step: host arrays by name, and what is no array."""
        weights, model = model_state(self.model)
        remembered, optimizer = optimizer_state(self.optimizer)
        tally = self._tally.state_dict()
        sums = {name: value for name, value in tally.items() if hasattr(value, "dtype")}
        arrays = {**under("model", weights), **under("optimizer", remembered), **under("tally", sums)}
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
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "seconds": self._seconds,
            "skipped": [self._skipped, self._skipped_in_a_row],
            "tally": {name: value for name, value in tally.items() if name not in sums},
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
            If it is of another run: of another model, optimizer, schedule, data or batch size. What differs is named.
        """
        facts, arrays = found.facts, found.arrays
        try:
            require_facts(facts)
        except ValueError as error:
            raise CheckpointError(f"{found.path} is damaged: {error}") from error
        try:
            self._require_same(facts)
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
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{found.path} is not of this run: {error}") from error
        self._first_pass = facts["first_pass"]
        self.epoch, self.batch, self.steps = facts["epoch"], facts["batch"], facts["steps"]
        self._seconds = facts["seconds"]
        self._skipped, self._skipped_in_a_row = facts["skipped"]
        self._tally = Tally(self.model.backend)
        self._tally.load_state_dict({**facts["tally"], **part("tally", arrays)})
        self.history = History.from_rows(facts["history"])

    def _require_same(self, facts: dict[str, Any]) -> None:
        assert self.checkpoints is not None
        mine = None if self.schedule is None else type(self.schedule).__name__
        theirs = None if facts["schedule"] is None else facts["schedule"]["kind"]
        here = self.model.backend.numerics
        for what, was, now in (
            ("schedule", theirs, mine),
            ("numerics", facts["numerics"], here),
            ("optimizer", facts["optimizer"]["kind"], type(self.optimizer).__name__),
            *((name, facts["about"].get(name), v) for name, v in self.checkpoints.about.items()),
        ):
            if was != now:
                raise ValueError(f"its {what} was {was}, this run's is {now}")
