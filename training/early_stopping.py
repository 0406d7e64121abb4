"""Stop when a figure has stopped getting better."""

from dataclasses import dataclass

from ..layers.geometry import is_integer
from .history import History
from .optimizer import in_range


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
        if not is_integer(self.patience) or self.patience < 1:
            raise ValueError(f"patience takes an integer >= 1, got {self.patience!r}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode takes 'min' or 'max', got {self.mode!r}")
        in_range("threshold", self.threshold)

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
