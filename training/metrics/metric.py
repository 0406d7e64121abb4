"""The base of the metrics, and functions as metrics."""

import copy
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from math import nan, prod
from typing import Any, ClassVar, Self, TypeAlias

from ...backends import Backend, backend_of, to_host
from ...backends.inputs import host_data
from ...common import checks
from ...common.types import Array
from ...layers.losses import Loss
from ..optimizers.counters import widest

#: Sums of a metric: arrays on the device, or numbers on the host.
Sums: TypeAlias = tuple[Any, ...]

ADVICE = "give objects of nn.metrics, such as nn.metrics.Accuracy(), or functions of (prediction, target)"


class Metric:
    """Base of the metrics: a figure of all samples, computed from sums over batches.

    Called with predictions and targets, a metric returns its figure for these. A subclass defines

    ``sums(prediction, target, b)``
        The sums of one batch: a tuple of arrays, made by functions of the Array API standard from ``b.xp``, or of
        numbers that depend on shapes only. Nothing may be read from the device. Floats should be added up in
        ``widest(b)``.
    ``result(*sums)``
        The figure, for the sums of all batches as numbers and NumPy arrays on the host.
    ``merge(total, part)``
        Optional: the sums of both, unless that is entry by entry ``total + part``.

    Parameters
    ----------
    name : str, optional
        Under which the result is reported; the name of the class in snake case unless given.

    Attributes
    ----------
    mode : {"min", "max", None}
        Whether small or large results are good; None if that is not known.
    is_number : bool
        Whether the result is one number, so that early stopping and the best checkpoint can follow it.
    """

    mode: str | None = None
    is_number: ClassVar[bool] = True
    #: The constructor's arguments but ``name``, each an attribute, with their defaults; ``...`` if it is required.
    signature: ClassVar[tuple[tuple[str, Any], ...]] = ()

    def __init__(self, *, name: str | None = None) -> None:
        self.name: str = _snake_case(type(self).__name__) if name is None else _checked_name(name)

    def __call__(self, prediction: Any, target: Any) -> Any:
        """The result for arrays of any backend, or data on the host; waits for the device."""
        prediction, target = _as_array("prediction", prediction), _as_array("target", target)
        b = backend_of(prediction)
        with b.context():
            sums = self.sums(prediction, target, b)
        return self.result(*(to_host(each) if hasattr(each, "shape") else each for each in sums))

    def for_loss(self, loss: Loss) -> Self:
        """This metric for use with a loss: settings that were not given become those of the loss."""
        return self

    def check(self, prediction: Array, target: Array) -> None:
        """Raise `ValueError` unless the shapes and dtypes of predictions and targets fit; nothing is computed."""

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """The sums of one batch."""
        raise NotImplementedError(f"{type(self).__name__} defines no sums")

    def merge(self, total: Sums, part: Sums) -> Sums:
        """The sums of two sets of samples."""
        return tuple(a + b for a, b in zip(total, part, strict=True))

    def result(self, *sums: Any) -> Any:
        """The figure for sums on the host; NaN if nothing was added up."""
        raise NotImplementedError(f"{type(self).__name__} defines no result")

    def __repr__(self) -> str:
        given = [f"{key}={getattr(self, key)!r}" for key, default in self.signature if getattr(self, key) != default]
        if self.name != _snake_case(type(self).__name__):
            given.append(f"name={self.name!r}")
        return f"{type(self).__name__}({', '.join(given)})"


class Mean(Metric):
    """A function of a batch as a metric: the mean of its results, weighted by the numbers of samples.

    Unlike other metrics this is a mean of means, which is the figure of all samples only if the function is itself a
    mean over samples.

    Parameters
    ----------
    function : callable
        Called as ``function(prediction, target)`` with arrays of the model's backend, ``(N, ...)``; returns a number,
        or a 0-d array, which is not read before the epoch ends.
    name : str, optional
        The function's ``__name__`` unless given.
    mode : {"min", "max"}, optional
        Whether small or large results are good. It must be given if early stopping or the best checkpoint is to follow
        a function whose name ends neither in ``loss`` or ``error`` nor in ``accuracy``.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], *, name: str | None = None, mode: str | None = None
    ) -> None:
        if not checks.accepts(function, 2):
            raise TypeError(f"function must be a function of (prediction, target), got {checks.shown(function)}")
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        own = getattr(inner, "__name__", None) or _snake_case(type(inner).__name__)
        super().__init__(name=own if name is None else name)
        self._function = function
        self.mode = checks.choice("mode", mode, ("min", "max", None)) or _mode_of(self.name)

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """The result times the number of samples, and that number."""
        samples = float(target.shape[0])
        value = self._function(prediction, target) if samples else 0.0
        if checks.is_number(value):
            return value * samples, samples
        if not hasattr(value, "shape") or prod(value.shape) != 1 or not b.owns(value):
            raise ValueError(
                f"metric {self.name} must return one number, or an array with one entry of {b.spec}, got "
                f"{checks.shown(value)}"
            )
        return b.xp.astype(b.xp.reshape(value, ()), widest(b)) * samples, samples

    def result(self, *sums: Any) -> Any:
        """The weighted mean."""
        total, samples = sums
        return _item(total) / samples if samples else nan

    def __repr__(self) -> str:
        return f"Mean({self.name})"


#: What `fit` and `evaluate` accept as a metric.
AnyMetric: TypeAlias = Metric | Callable[[Any, Any], Any]


def as_metrics(given: Sequence[AnyMetric] | AnyMetric, loss: Loss) -> tuple[Metric, ...]:
    """The argument ``metrics``, checked: functions become `Mean`.

    Raises
    ------
    TypeError, ValueError
        For anything else, and for names that are used twice or belong to the loss.
    """
    every = list(given) if checks.is_sequence(given) else [given]
    found = [_as_metric(each).for_loss(loss) for each in every]
    names = [each.name for each in found]
    for name in names:
        if name == "loss" or names.count(name) > 1:
            taken = "the loss itself is" if name == "loss" else "two of them are"
            raise ValueError(f"metrics: {taken} called {name!r}; give one another name, as in Accuracy(name='top')")
    return tuple(found)


def _as_metric(given: Any) -> Metric:
    if isinstance(given, Metric):
        return given
    if isinstance(given, Loss):
        raise TypeError(
            f"metrics must be objects of nn.metrics or functions, got the loss {given!r}; pass its function: "
            f"lambda prediction, target: {type(given).__name__}()(prediction, target)"
        )
    if inspect.isclass(given) and issubclass(given, Metric):
        raise TypeError(f"metrics: {given.__name__} is a class; make an object of it: nn.metrics.{given.__name__}(...)")
    if isinstance(given, str) or not checks.accepts(given, 2):
        raise TypeError(f"metrics: {checks.shown(given)} is no metric; {ADVICE}")
    return Mean(given)


def with_setting(metric: Metric, **settings: Any) -> Any:
    """A copy of a metric with other values of attributes."""
    changed = copy.copy(metric)
    vars(changed).update(settings)
    return changed


def _as_array(name: str, data: Any) -> Any:
    return data if hasattr(data, "shape") else host_data(data, name, convert=True)


def _item(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _mode_of(name: str) -> str | None:
    """Whether small or large results are good, by the end of the function's name; None if that does not tell."""
    if name.endswith("accuracy"):
        return "max"
    return "min" if name.endswith(("loss", "error")) else None


def _snake_case(name: str) -> str:
    """``mean_absolute_error`` of ``MeanAbsoluteError``, ``iou`` of ``IoU``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f"name must be printable text, got {checks.shown(name)}")
    return name
