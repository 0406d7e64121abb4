"""Stop when a figure has stopped getting better."""

from dataclasses import dataclass

from ..backends import checks
from .history import History


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in a row without improvement.

    It is a function of the history alone, so it goes on after a resume as if nothing had happened.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which training stops, at least 1.
    metric : str
        A column of the history.
    mode : {"min", "max"}
        Whether less is better, or more.
    threshold : float
        By how much a figure must beat the best one.

    Raises
    ------
    ValueError
        For values out of range.
    """

    patience: int
    metric: str = "validation_loss"
    mode: str = "min"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        plain = {
            "patience": checks.integer("patience", self.patience, 1),
            "mode": checks.choice("mode", self.mode, ("min", "max")),
            "threshold": checks.number("threshold", self.threshold, least=0),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def best(self, history: History) -> int:
        """Index of the best epoch so far, the earliest of equals; NaN is never best."""
        sign, best, index = (1.0 if self.mode == "max" else -1.0), None, 0
        for i, value in enumerate(history[self.metric]):
            if value == value and (best is None or sign * value > sign * best + self.threshold):
                best, index = value, i
        return index

    def reached(self, history: History) -> bool:
        """Whether it is time to stop."""
        return bool(history.rows) and len(history.rows) - 1 - self.best(history) >= self.patience
