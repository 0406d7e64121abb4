"""The arguments of `fit`: names, types, defaults and checks."""

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

from ..backends.backend import PRECISIONS
from ..common import checks
from ..distributed import Group
from ..distributed.single import alone
from ..layers.core.layer import Layer
from ..layers.losses import Loss
from ..layers.losses.regression import SumLoss
from .checkpoints import Checkpoints
from .early_stopping import EarlyStopping
from .ema import EMA
from .evaluation import Data
from .gradients import MOST_PARTS, part_sizes
from .history import History
from .metrics.metric import AnyMetric
from .optimizers import Optimizer
from .schedules.base import Schedule

P = ParamSpec("P")
T = TypeVar("T")
Result = TypeVar("Result")

# Losses that are means: gradients of parts of a batch add up to the gradient of the whole.
MEANS = ("mean", "batchmean")
LOSS_ADVICE = "make one, such as nn.MSE()"


@dataclass(eq=False)
class FitOptions:
    """The arguments of `fit`, which documents them.

    Attributes
    ----------
    processes : Group
        The ``group``, or without one this process alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.
    """

    model: Layer
    data: Data
    _: KW_ONLY
    validation: Data | None = None
    loss: Loss | None = None
    optimizer: Optimizer | None = None
    epochs: int = 10
    batch_size: int = 32
    seed: int = 0
    progress: bool = True
    shards: int | Sequence[int] = 1
    accumulate: int = 1
    schedule: Schedule | None = None
    schedule_each: str = "step"
    clip_norm: float | None = None
    clip_value: float | None = None
    ema: EMA | None = None
    on_nan: str | None = None
    early_stopping: EarlyStopping | int | None = None
    metrics: Sequence[AnyMetric] = ()
    monitor: str | None = None
    mode: str | None = None
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None
    resume: bool = False
    after_epoch: Callable[[History], None] | None = None
    compile: bool | str = "auto"
    precision: str | None = None
    group: Group | None = None

    def __post_init__(self) -> None:
        checks.instance("model", self.model, Layer)
        if self.loss is not None and checks.instance("loss", self.loss, Loss, LOSS_ADVICE).reduction not in MEANS:
            hint = f", a sum; use its mean, nn.{self.loss.mean.__name__}()" if isinstance(self.loss, SumLoss) else ""
            raise ValueError(f"loss must have reduction='mean', got {self.loss!r}{hint}")
        if self.optimizer is not None:
            checks.instance("optimizer", self.optimizer, Optimizer, "give one over the model, such as nn.Adam(model)")
        self.epochs = checks.integer("epochs", self.epochs, 1)
        self.batch_size = checks.integer("batch_size", self.batch_size, 1)
        self.progress = checks.flag("progress", self.progress)
        self.shards = part_sizes(self.shards)
        self.accumulate = checks.integer("accumulate", self.accumulate, 1, MOST_PARTS)
        if self.accumulate > 1 and len(self.shards) > 1:
            raise ValueError("shards and accumulate both compute a step part by part; give one of them")
        if self.schedule is not None:
            checks.instance("schedule", self.schedule, Schedule, "make one: nn.CosineLR(optimizer, total_steps)")
        checks.choice("schedule_each", self.schedule_each, ("step", "epoch"))
        if self.clip_norm is not None:
            self.clip_norm = checks.number("clip_norm", self.clip_norm, above=0.0)
        if self.clip_value is not None:
            self.clip_value = checks.number("clip_value", self.clip_value, above=0.0)
        if self.ema is not None and checks.instance("ema", self.ema, EMA).model is not self.model:
            raise ValueError("ema must be of the model that is trained: make it with EMA(model)")
        checks.choice("on_nan", self.on_nan, ("stop", "skip", None))
        if self.early_stopping is not None and not checks.is_integer(self.early_stopping):
            advice = "or give its patience, a number of epochs"
            checks.instance("early_stopping", self.early_stopping, EarlyStopping, advice)
        if self.monitor is not None:
            checks.instance("monitor", self.monitor, str, "name a column of the history, such as 'validation_accuracy'")
            if isinstance(self.early_stopping, EarlyStopping):
                raise ValueError("monitor and early_stopping both name a metric; give monitor and a number of epochs")
        checks.choice("mode", self.mode, ("min", "max", None))
        if self.mode is not None and self.monitor is None:
            raise ValueError("mode belongs to monitor, the column by which the best epoch is chosen; give that too")
        if self.checkpoints is not None and not isinstance(self.checkpoints, Checkpoints | str | os.PathLike):
            raise TypeError(f"checkpoints must be a folder's path or Checkpoints, got {checks.shown(self.checkpoints)}")
        self.resume = checks.flag("resume", self.resume)
        if self.resume and self.checkpoints is None:
            raise ValueError("resume=True needs checkpoints, the folder to resume from")
        if self.precision is not None:
            checks.choice("precision", self.precision, PRECISIONS)
        if self.compile != "auto":
            try:
                self.compile = checks.flag("compile", self.compile)
            except (TypeError, ValueError):
                raise ValueError(f"compile must be True, False or 'auto', got {checks.shown(self.compile)}") from None
        if self.compile is True and (self.accumulate > 1 or len(self.shards) > 1):
            raise ValueError("compile=True needs whole batches; leave out shards and accumulate")
        group = alone() if self.group is None else self.group
        self.processes = checks.instance("group", group, Group, "make one: nn.distributed.init()")
        if group.size > 1 and len(self.shards) > 1:
            raise ValueError("group and shards both split each batch; give one of them")
        if group.size > 1 and self.compile is True:
            raise ValueError("compile=True: steps of a group are not recorded; leave compile out")
        if self.after_epoch is not None and not callable(self.after_epoch):
            raise TypeError(f"after_epoch must be a function of the history, got {checks.shown(self.after_epoch)}")


def with_arguments_of(options: Callable[P, T]) -> Callable[[Callable[[T], Result]], Callable[P, Result]]:
    """Decorator for a function whose only argument is an object of the class ``options``.

    The function is then called with the arguments of the class, and the decorator makes the object. These arguments
    are what `inspect.signature`, `help` and type checkers show.
    """

    def decorate(function: Callable[[T], Result]) -> Callable[P, Result]:
        signature = inspect.signature(options)
        signature = signature.replace(return_annotation=inspect.signature(function).return_annotation)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                # Without this the message would name the constructor of the options.
                raise TypeError(f"{function.__name__}() {error}{_advice(signature, len(args), kwargs)}") from None
            return function(options(*args, **kwargs))

        call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        call.__annotations__["return"] = signature.return_annotation
        call.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature reads
        return call

    return decorate


def _advice(signature: inspect.Signature, count: int, keywords: Iterable[str]) -> str:
    """What to do about arguments that do not fit a signature: ``count`` by position, the others by these keywords."""
    by_position = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if count > len(by_position):
        return f"; by position only {' and '.join(by_position)} are accepted"
    for unknown in (name for name in keywords if name not in signature.parameters):
        longer = [name for name in signature.parameters if name.startswith(unknown)]
        close = longer or get_close_matches(unknown, signature.parameters, 1, 0.7)
        return f"; did you mean {close[0]}?" if close else ""
    return ""
