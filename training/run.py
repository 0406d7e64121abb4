"""A training run: what is trained, on what data, with which settings, and how far it is."""

import copy
import dataclasses
import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from ..layers.losses import CrossEntropy, Loss
from .checkpoints import Checkpoints
from .consistency_checks import require_targets, require_trainable
from .data_loader import DataLoader
from .early_stopping import EarlyStopping
from .evaluation import as_loader
from .grad_scaler import GradScaler
from .gradients import part_sizes, parts_have_bits_of_whole
from .history import History
from .metrics.metric import as_metrics
from .modes import layers_in_evaluation
from .optimizers import Adam, Optimizer
from .options import FitOptions
from .ranks.metrics import WholeBatchMetrics
from .run_settings import frozen_parameters, loss_settings, optimizer_settings, plain, schedule_settings
from .running_metrics import ACCURACY, RunningMetrics, has_classes, none_ignored
from .share import Share


class Run:
    """A run as `FitOptions` describe it, with their defaults filled in.

    Attributes
    ----------
    model, loss, optimizer, schedule, validation, checkpoints, early_stopping
        Those of the options, or their defaults, as objects.
    loader : DataLoader
        The data in batches of one step each.
    sizes : list of int
        Relative sizes of the parts of a step, and ``parts_are_exact``: whether parts have the bits of the whole batch.
    other_metrics : tuple of Metric
        What is measured beside loss and accuracy.
    metrics : RunningMetrics
        Of the current epoch.
    epoch : int
        The current epoch, from 1.
    batch : int
        Steps done in it.
    steps : int
        Steps done in all.
    seconds : float
        Time spent in the current epoch before the run was last saved.
    skipped, skipped_in_a_row : int
        Batches skipped in the current epoch, and those since the last step.
    first_pass : int
        The loader's epoch in the run's first epoch.
    history : History
    best : EarlyStopping
        Chooses the best epoch.
    evaluated : list of str
        Full names of the layers that stay in evaluation.
    group : Group
        The processes that train together.
    scaler : GradScaler or None
        Of a run in float16.
    settings : dict
        `own_settings` when the run began; a resumed run has those of the run that it continues.
    """

    def __init__(self, options: FitOptions) -> None:
        self.options, self.model = options, options.model
        self.loss: Loss = CrossEntropy() if options.loss is None else options.loss
        self.optimizer: Optimizer = Adam(options.model) if options.optimizer is None else options.optimizer
        self.schedule, self.epochs = options.schedule, options.epochs
        self.scaler = GradScaler() if self.model.backend.precision == "float16" else None
        self.group = options.processes
        self.sizes = part_sizes(options.shards)
        self.parts_are_exact = parts_have_bits_of_whole(self.model, self.loss)
        if self.group.size > 1 and options.accumulate > 1 and self.parts_are_exact:
            raise ValueError(
                "accumulate with a group works in fast numerics only; leave it out: a rank computes a part"
            )
        self.loader, self.validation = self._loaders()
        folder = options.checkpoints
        self.checkpoints = folder if folder is None or isinstance(folder, Checkpoints) else Checkpoints(folder)
        require_trainable(self.model, self.optimizer, self.schedule)
        for loader in (self.loader, self.validation):
            if loader is not None:
                require_targets(self.loss, loader, options.loss is None)

        self.other_metrics = as_metrics(options.metrics, self.loss)
        self.history = self.with_modes(History())
        measured = options.monitor or ("train_loss" if self.validation is None else "validation_loss")
        stopping = options.early_stopping
        self.early_stopping = (
            stopping if isinstance(stopping, EarlyStopping | None) else EarlyStopping(stopping, measured, options.mode)
        )
        self.best = self.early_stopping or EarlyStopping(1, measured, options.mode)
        self._require_metric()
        self.best = self._with_mode(self.best)
        self.early_stopping = self.early_stopping and self.best
        self.epoch, self.batch, self.steps, self.seconds = 1, 0, 0, 0.0
        self.skipped = self.skipped_in_a_row = 0
        self.none_ignored = none_ignored(self.loss, self.loader)
        self.metrics = self.new_metrics()
        self.first_pass = self.loader.epoch
        self.evaluated = layers_in_evaluation(self.model)
        self.settings = plain(self.own_settings())

    def _loaders(self) -> tuple[DataLoader, DataLoader | None]:
        """Of training, in batches of a step, and of validation."""
        options = self.options
        loader = as_loader("data", options.data, options.batch_size, shuffle=True, seed=options.seed)
        measured = loader.batch_size
        if len(self.sizes) > 1 and not self.parts_are_exact:
            # Memory holds one part of a step at a time.
            measured = -(-measured * max(self.sizes) // sum(self.sizes))
        if not self.parts_are_exact:
            measured = -(-measured // self.group.size)
        if options.accumulate > 1:
            loader = copy.copy(loader)
            loader.batch_size *= options.accumulate
        data = options.validation
        validation = None if data is None else as_loader("validation", data, measured, shuffle=False)
        loader.require_batches()
        return loader, validation

    def with_modes(self, history: History) -> History:
        """The history, which then knows what values of the metrics are good."""
        for part in ("train", "validation"):
            history.modes |= {f"{part}_{metric.name}": metric.mode for metric in self.other_metrics}
        return history

    def _with_mode(self, stopping: EarlyStopping) -> EarlyStopping:
        """With the mode of its metric, unless it has one."""
        if stopping.mode is not None:
            return stopping
        return dataclasses.replace(stopping, mode=self.history.mode_of(stopping.metric))

    def columns(self) -> list[str]:
        """The columns that the history will have; an accuracy only if predictions turn out to be scores of classes."""

        def measured(prefix: str, loader: DataLoader) -> list[str]:
            names = [
                "loss",
                *([ACCURACY] if has_classes(loader) else []),
                *(metric.name for metric in self.other_metrics),
            ]
            return [f"{prefix}_{name}" for name in dict.fromkeys(names)]

        return [
            "epoch",
            *measured("train", self.loader),
            *(["lr"] if self.schedule is not None else []),
            *(["skipped"] if self.options.on_nan == "skip" else []),
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
                f"the metric of early_stopping must be a column of this run, {', '.join(columns)}; got {metric!r}{hint}"
            )

        name = metric.partition("_")[2]
        if any(name == each.name and not each.is_number for each in self.other_metrics):
            raise ValueError(f"the metric of early_stopping must be a number, got {metric!r}; name another column")

    def new_metrics(self) -> RunningMetrics:
        """Empty sums of loss, accuracy and metrics."""
        kind: Callable[..., RunningMetrics] = RunningMetrics
        if self.group.size > 1 and self.parts_are_exact:
            kind = partial(WholeBatchMetrics, self.group)
        return kind(self.model.backend, self.loss, none_ignored=self.none_ignored, metrics=self.other_metrics)

    @property
    def share(self) -> Share:
        """Which samples of each batch this process computes."""
        return Share(self.group.rank, self.group.size)

    def samples_of_step(self) -> int:
        """Samples of the batch of the current step, those of all processes."""
        return min(self.loader.batch_size, self.loader.samples - self.batch * self.loader.batch_size)

    def start_pass(self) -> None:
        """Let the loader shuffle for the current epoch."""
        self.loader.epoch = self.first_pass + self.epoch - 1

    def next_epoch(self) -> None:
        """Begin the next epoch, with empty sums."""
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.metrics, self.skipped = self.new_metrics(), 0

    def changeable(self) -> list[Any]:
        """What a function that is called between epochs may change: what is trained, and how fast."""
        return [
            frozen_parameters(self.model),
            layers_in_evaluation(self.model),
            optimizer_settings(self.optimizer, None),
            None if self.schedule is None else self.schedule.state_dict(),
        ]

    def own_settings(self) -> dict[str, Any]:
        """What another run must have in common with this one to resume from its checkpoints."""
        options = self.options
        any_parts = options.accumulate > 1 or self.parts_are_exact
        return {
            "numerics": self.model.backend.numerics,
            "optimizer": {
                "kind": type(self.optimizer).__name__,
                **optimizer_settings(self.optimizer, self.schedule),
            },
            "schedule": schedule_settings(self.schedule, options.schedule_each),
            "loss": loss_settings(self.loss),
            "frozen parameters": frozen_parameters(self.model),
            "layers in evaluation": self.evaluated,
            "clip_norm": options.clip_norm,
            "clip_value": options.clip_value,
            "moving average": None if options.ema is None else repr(options.ema),
            "accumulate": options.accumulate,
            # tf32 is only how a GPU multiplies, and a run may go on elsewhere.
            "precision": "float32" if self.model.backend.narrow is None else self.model.backend.precision,
            # Parts that have the bits of the whole batch may differ.
            "shards": None if any_parts else self.sizes,
            "metrics": [repr(metric) for metric in self.other_metrics],
            "metric of the best epoch": f"{self.best.metric} ({'most' if self.best.sign > 0 else 'least'})",
        }
