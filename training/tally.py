"""Loss and accuracy over many batches, read when somebody asks."""

from collections.abc import Mapping
from math import prod
from typing import Any

from ..backends import Backend
from ..backends.types import Array, dtype_name


class Tally:
    """Loss and accuracy over many batches, added up on the device."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.samples = 0
        self.targets = 0
        self.loss: Array | float | None = None
        self.correct: Array | int | None = None

    def add(self, loss: Array | float, prediction: Array, target: Array) -> None:
        """Count a batch, given its mean loss, on the device or read already."""
        xp, n = self.backend.xp, int(prediction.shape[0])
        self.samples += n
        with self.backend.context():
            self.loss = loss * float(n) if self.loss is None else self.loss + loss * float(n)
            if is_classification(prediction, target):
                self.targets += prod(target.shape)
                hits = xp.astype(xp.argmax(prediction, axis=1), target.dtype) == target
                correct = xp.sum(xp.astype(hits, xp.int64 if hasattr(xp, "int64") else xp.int32))
                self.correct = correct if self.correct is None else self.correct + correct

    def read(self, prefix: str = "") -> dict[str, float]:
        """Mean loss and, for classes, accuracy: waits for the device."""
        values = {}
        if self.loss is not None:
            values[f"{prefix}loss"] = self._number(self.loss) / self.samples
        if self.correct is not None:
            values[f"{prefix}accuracy"] = self._number(self.correct) / self.targets
        return values

    def state_dict(self) -> dict[str, Any]:
        """Counts and sums: numbers, and a host array of the loss where it was added up on the device."""
        loss = self.backend.to_numpy(self.loss) if hasattr(self.loss, "dtype") else self.loss
        correct = None if self.correct is None else int(self._number(self.correct))
        return {"samples": self.samples, "targets": self.targets, "loss": loss, "correct": correct}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, value in state.items():
            setattr(self, name, self.backend.asarray(value) if hasattr(value, "dtype") else value)

    def _number(self, total: Any) -> float:
        return float(self.backend.to_numpy(total)) if hasattr(total, "dtype") else float(total)


def is_classification(prediction: Array, target: Array) -> bool:
    """Whether the targets are classes, of which predictions hold a score each."""
    return dtype_name(target.dtype).startswith(("int", "uint")) and target.ndim == prediction.ndim - 1
