"""Loss and accuracy over many batches, added up on the device and read on request."""

from collections.abc import Mapping
from math import nan, prod
from typing import Any

from ..backends import Backend
from ..common.types import Array, dtype_name
from ..layers.losses import Loss
from ..layers.losses.class_targets import can_hold
from .data_loader import DataLoader
from .optimizers.counters import widest


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
    """

    def __init__(self, backend: Backend, loss: Loss, *, none_ignored: bool = False) -> None:
        self.backend, self.loss, self.none_ignored = backend, loss, none_ignored
        #: Weighted sum of losses, and sum of weights.
        self.total: Array | float | None = None
        self.weight: Array | float = 0.0
        #: Targets that were predicted correctly, and all that count.
        self.correct: Array | int | None = None
        self.targets: Array | int = 0

    def add(self, value: Array | float, prediction: Array, target: Array) -> None:
        """Add a batch, given its loss, on the device or on the host."""
        with self.backend.context():
            self._add_loss(value, prediction, target)
            if is_classification(prediction, target):
                self._add_classes(prediction, target)

    def _add_loss(self, value: Array | float, prediction: Array, target: Array) -> None:
        xp, value = self.backend.xp, self._wide(value)
        if self.loss.reduction != "sum":
            counted = self._wide(self.loss.counted(prediction, target, none_ignored=self.none_ignored))
            self.weight = self.weight + counted
            if not isinstance(counted, float):
                # The mean is NaN if no target counts.
                value = xp.where(counted == 0.0, xp.zeros_like(counted), value * counted)
            else:
                value = value * counted if counted else 0.0
        self.total = value if self.total is None else self.total + value

    def _add_classes(self, prediction: Array, target: Array) -> None:
        xp, ignored = self.backend.xp, getattr(self.loss, "ignore_index", None)
        hits = xp.astype(xp.argmax(prediction, axis=1), target.dtype) == target
        counted: Array | int = prod(target.shape)
        if ignored is not None and not self.none_ignored and can_hold(target, ignored, xp):
            counts = target != ignored
            hits, counted = xp.logical_and(hits, counts), xp.count_nonzero(counts)
        self.targets = self.targets + counted
        correct = xp.count_nonzero(hits)
        self.correct = correct if self.correct is None else self.correct + correct

    def read(self, prefix: str = "") -> dict[str, float]:
        """Mean loss and, for classes, accuracy: waits for the device. A mean over nothing is NaN."""
        weight = self._number(self.weight) if self.loss.reduction != "sum" else 1.0
        values = {f"{prefix}loss": self._number(self.total) / weight if weight and self.total is not None else nan}
        if self.correct is not None:
            targets = self._number(self.targets)
            values[f"{prefix}accuracy"] = self._number(self.correct) / targets if targets else nan
        return values

    def state_dict(self) -> dict[str, float | None]:
        """Sums, as numbers: waits for the device."""
        return {name: None if value is None else self._number(value) for name, value in self._sums().items()}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Continue from a `state_dict`."""
        for name in self._sums():
            setattr(self, name, state[name])

    def _sums(self) -> dict[str, Any]:
        return {"total": self.total, "weight": self.weight, "correct": self.correct, "targets": self.targets}

    def _wide(self, value: Array | float) -> Array | float:
        """In the device's widest float dtype; a number on the host has float64 already."""
        if not hasattr(value, "dtype"):
            return float(value)
        return self.backend.xp.astype(value, widest(self.backend), copy=False)

    def _number(self, value: Any) -> Any:
        return self.backend.to_numpy(value).item() if hasattr(value, "dtype") else value


def is_classification(prediction: Array, target: Array) -> bool:
    """Whether the targets are classes, and the predictions scores of them."""
    return dtype_name(target.dtype).startswith(("int", "uint")) and target.ndim == prediction.ndim - 1


def none_ignored(loss: Loss, loader: DataLoader) -> bool:
    """Whether targets in host memory prove that the loss ignores none of a loader's."""
    ignored = getattr(loss, "ignore_index", None)
    return ignored is None or not loader.may_have_target(ignored)
