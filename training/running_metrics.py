"""Loss, accuracy and other metrics over many batches, added up on the device and read on request."""

from collections.abc import Mapping, Sequence
from math import nan, prod
from typing import Any, NamedTuple

from ..backends import Backend
from ..common.types import Array, dtype_name, is_integer_dtype
from ..layers.losses import Loss
from ..layers.losses.class_targets import can_hold
from .data_loader import DataLoader
from .metrics.metric import Metric, Sums
from .optimizers.counters import widest
from .packed_read import read_all

#: Name of the share of correct predictions, which is measured for classes without being requested.
ACCURACY = "accuracy"


class Counts(NamedTuple):
    """Numbers of a batch: what its mean divides by, and how many of how many targets were predicted correctly."""

    weight: Array | float
    correct: Array | int | None
    targets: Array | int


class RunningMetrics:
    """Mean loss and accuracy over many batches, from sums on the device.

    A batch is weighted by what its own mean divides by (`Loss.counted`), so the result is the loss of all samples at
    once, whatever the batches. Targets that the loss ignores are neither right nor wrong, and a batch of only these
    adds nothing. The loss is added up in the device's widest float dtype, so that no digits of small batches are lost.

    Parameters
    ----------
    backend : Backend
        Of the predictions.
    loss : Loss
        Whose values `add` receives. Values of a sum are not weighted.
    none_ignored : bool
        Whether the loss is known to ignore none of the targets, which saves counting them.
    metrics : sequence of Metric
        What to measure besides; one that is called ``accuracy`` takes the place of that of the classes.
    """

    def __init__(
        self, backend: Backend, loss: Loss, *, none_ignored: bool = False, metrics: Sequence[Metric] = ()
    ) -> None:
        self.backend, self.loss, self.none_ignored = backend, loss, none_ignored
        self.metrics = {metric.name: metric for metric in metrics}
        #: Weighted sum of losses, and sum of weights.
        self.total: Array | float | None = None
        self.weight: Array | float = 0.0
        #: Targets that were predicted correctly, and all that count.
        self.correct: Array | int | None = None
        self.targets: Array | int = 0
        #: The sums of each metric to which a batch was added.
        self.others: dict[str, Sums] = {}

    def check(self, prediction: Array, target: Array) -> None:
        """Raise `ValueError` if a metric can't be computed of predictions and targets of these shapes and dtypes."""
        for metric in self.metrics.values():
            metric.check(prediction, target)

    def add(self, value: Array | float, prediction: Array, target: Array) -> None:
        """Add a batch, given its loss, on the device or on the host."""
        with self.backend.context():
            counts = self._counts(prediction, target)
            self._add_loss(value, counts.weight)
            if counts.correct is not None:
                self.targets = self.targets + counts.targets
                self.correct = counts.correct if self.correct is None else self.correct + counts.correct
            for name, metric in self.metrics.items():
                part = tuple(map(self._wide, metric.sums(prediction, target, self.backend)))
                self.others[name] = metric.merge(self.others[name], part) if name in self.others else part

    def _counts(self, prediction: Array, target: Array) -> Counts:
        weight: Array | float = 1.0
        if self.loss.reduction != "sum":
            weight = self.loss.counted(prediction, target, none_ignored=self.none_ignored)
        if ACCURACY in self.metrics or not is_classification(prediction, target):
            return Counts(weight, None, 0)
        xp, ignored = self.backend.xp, getattr(self.loss, "ignore_index", None)
        hits = xp.astype(xp.argmax(prediction, axis=1), target.dtype) == target
        targets: Array | int = prod(target.shape)
        if ignored is not None and not self.none_ignored and can_hold(target, ignored, xp):
            counts = target != ignored
            hits, targets = xp.logical_and(hits, counts), xp.count_nonzero(counts)
        return Counts(weight, xp.count_nonzero(hits), targets)

    def _add_loss(self, value: Array | float, weight: Array | float) -> None:
        xp, value = self.backend.xp, self._float(value)
        if self.loss.reduction != "sum":
            counted = self._float(weight)
            self.weight = self.weight + counted
            if not isinstance(counted, float):
                # The mean is NaN if no target counts.
                value = xp.where(counted == 0.0, xp.zeros_like(counted), value * counted)
            else:
                value = value * counted if counted else 0.0
        self.total = value if self.total is None else self.total + value

    def read(self, prefix: str = "") -> dict[str, Any]:
        """Mean loss, accuracy for classes, and the metrics, in one transfer: waits for the device.

        A mean over nothing is NaN.
        """
        total, weight, correct, targets, others = self._read()
        weight = weight if self.loss.reduction != "sum" else 1.0
        values = {f"{prefix}loss": total / weight if weight and total is not None else nan}
        if correct is not None:
            values[f"{prefix}{ACCURACY}"] = correct / targets if targets else nan
        for name, sums in others.items():
            values[f"{prefix}{name}"] = self.metrics[name].result(*sums)
        return values

    def state_dict(self) -> dict[str, Any]:
        """Sums, as numbers and nested lists of them: waits for the device."""
        total, weight, correct, targets, others = self._read()
        listed = {name: list(map(as_lists, sums)) for name, sums in others.items()}
        return {"total": total, "weight": weight, "correct": correct, "targets": targets, "metrics": listed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.total, self.weight = state["total"], state["weight"]
        self.correct, self.targets = state["correct"], state["targets"]
        # Without an entry: of an earlier version.
        saved = state.get("metrics", {})
        self.others = {name: tuple(map(self._sum_of, saved[name])) for name in self.metrics if name in saved}

    def _read(self) -> tuple[Any, Any, Any, Any, dict[str, list[Any]]]:
        """All sums, on the host."""
        flat = [self.total, self.weight, self.correct, self.targets]
        for sums in self.others.values():
            flat += sums
        found = read_all(self.backend, flat)
        total, weight, correct, targets = found[:4]
        others, start = {}, 4
        for name, sums in self.others.items():
            others[name] = found[start : start + len(sums)]
            start += len(sums)
        return total, weight, correct, targets, others

    def _sum_of(self, value: Any) -> Any:
        """A sum from a state: numbers stay on the host."""
        if not isinstance(value, list):
            return value
        entry = value
        while isinstance(entry, list) and entry:
            entry = entry[0]
        return self.backend.asarray(value, "int64" if isinstance(entry, int) else widest(self.backend))

    def merge(self, other: "RunningMetrics") -> None:
        """Add the sums of other batches."""
        if other.total is not None:
            self.total = other.total if self.total is None else self.total + other.total
        if other.correct is not None:
            self.correct = other.correct if self.correct is None else self.correct + other.correct
        self.weight, self.targets = self.weight + other.weight, self.targets + other.targets
        with self.backend.context():
            for name, part in other.others.items():
                own = self.others.get(name)
                self.others[name] = part if own is None else self.metrics[name].merge(own, part)

    def empty(self) -> "RunningMetrics":
        """The same without sums."""
        metrics = tuple(self.metrics.values())
        return RunningMetrics(self.backend, self.loss, none_ignored=self.none_ignored, metrics=metrics)

    def _float(self, value: Array | float) -> Array | float:
        """In the device's widest float dtype; a number on the host has float64 already."""
        if not hasattr(value, "dtype"):
            return float(value)
        return self.backend.xp.astype(value, widest(self.backend), copy=False)

    def _wide(self, value: Any) -> Any:
        """In the device's widest dtype, of floats or integers; a number on the host has that already."""
        if not hasattr(value, "dtype"):
            return value if isinstance(value, int) else float(value)
        is_float = dtype_name(value.dtype).startswith("float")
        return self.backend.xp.astype(value, widest(self.backend) if is_float else self.backend.xp.int64, copy=False)


def as_lists(value: Any) -> Any:
    """An array on the host as nested lists; a number unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def is_classification(prediction: Array, target: Array) -> bool:
    """Whether the targets are classes, and the predictions scores of at least two of them."""
    are_classes = is_integer_dtype(target.dtype) and target.ndim == prediction.ndim - 1
    return are_classes and prediction.shape[1] > 1


def has_classes(loader: DataLoader) -> bool:
    """Whether the targets of a loader are classes, not numbers."""
    return is_integer_dtype(loader.targets.dtype)


def none_ignored(loss: Loss, loader: DataLoader) -> bool:
    """Whether targets in host memory prove that the loss ignores none of a loader's."""
    ignored = getattr(loss, "ignore_index", None)
    return ignored is None or not loader.may_have_target(ignored)
