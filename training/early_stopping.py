"""When to stop training because a metric no longer improves, and which epoch is the best."""

from dataclasses import InitVar, dataclass
from math import isnan

from ..common import checks
from .history import History, less_is_better


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in a row without improvement.

    It depends on the history only, so a resumed run stops where the uninterrupted one would. The best checkpoint is
    chosen by the same metric.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which training stops, at least 1.
    metric : str
        A column of the history.
    mode : {"min", "max"}, optional
        Whether small or large values are good; unless given, that of the metric, and otherwise large for an accuracy
        and small for all else.
    threshold : float
        By how much a value must beat the best one to count as an improvement, at least 0. The best epoch has the best
        value, however small the difference.
    restore_best : bool
        Whether the model has the weights and buffers of the best epoch when `fit` ends, early or not. The optimizer's
        state stays that of the last epoch, and so does the newest checkpoint.
    monitor : str, optional
        Another name of ``metric``.

    Raises
    ------
    TypeError, ValueError
        If a value is of another kind or out of range.
    """

    patience: int
    metric: str = "validation_loss"
    mode: str | None = None
    threshold: float = 0.0
    restore_best: bool = False
    monitor: InitVar[str | None] = None

    def __post_init__(self, monitor: str | None) -> None:
        if monitor is not None:
            if self.metric not in (type(self).metric, monitor):
                raise ValueError(f"metric and monitor are the same setting, got {self.metric!r} and {monitor!r}")
            object.__setattr__(self, "metric", monitor)
        checked = {
            "patience": checks.integer("patience", self.patience, 1),
            "metric": checks.instance("metric", self.metric, str, "name a column of the history"),
            "mode": checks.choice("mode", self.mode, ("min", "max", None)),
            "threshold": checks.number("threshold", self.threshold, least=0),
            "restore_best": checks.flag("restore_best", self.restore_best),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def sign(self) -> float:
        """1 if large values are good, -1 if small ones are."""
        less = less_is_better(self.metric) if self.mode is None else self.mode == "min"
        return -1.0 if less else 1.0

    def best(self, history: History) -> int:
        """Index of the best epoch so far, the first of equally good ones; NaN is never the best."""
        return self._last_improvement(history, 0.0)

    def reached(self, history: History) -> bool:
        """Whether training should stop."""
        return (
            bool(history.rows)
            and len(history.rows) - 1 - self._last_improvement(history, self.threshold) >= self.patience
        )

    def _last_improvement(self, history: History, threshold: float) -> int:
        """Index of the last epoch that beat the best one before it by more than a threshold."""
        best, index = None, 0
        mode = self.mode or history.mode_of(self.metric)
        sign = 1.0 if mode == "max" else -1.0
        for i, value in enumerate(history[self.metric]):
            if not isnan(value) and (best is None or sign * value > sign * best + threshold):
                best, index = value, i
        return index
