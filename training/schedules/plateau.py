"""The schedule that reads a metric, and reduces the rate when it stops improving.

With the metric ``m`` and the best so far ``b``, an improvement is

========  ===================  ====================
mode      relative threshold   absolute threshold
========  ===================  ====================
min       ``m < b (1 - t)``    ``m < b - t``
max       ``m > b (1 + t)``    ``m > b + t``
========  ===================  ====================

The formulas are PyTorch's. NaN is never an improvement.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from ...backends.backend import FLOATS
from ...common import checks
from ...common.types import Array, dtype_name
from ..optimizers import Optimizer
from .base import Schedule


class ReduceLROnPlateau(Schedule):
    """Multiplies the rate by ``factor`` when a metric has stopped improving.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether small or large values are good.
    factor : float
        Above 0 and below 1.
    patience : int
        Steps without improvement before a reduction.
    threshold : float
        How much counts as improvement.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is relative to the best value or absolute.
    cooldown : int
        Steps after a reduction that do not count.
    min_lr : float
        Lower bound of the rates of all groups.
    eps : float
        A rate stays if it would change by less.
    """

    settings = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
    state_names = ("lr", "best", "bad_steps", "cooling")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(optimizer)
        self.mode = checks.choice("mode", mode, ("min", "max"))
        self.threshold_mode = checks.choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.factor = checks.number("factor", factor, above=0, below=1)
        self.patience, self.cooldown = checks.integer("patience", patience, 0), checks.integer("cooldown", cooldown, 0)
        self.threshold = checks.number("threshold", threshold, least=0)
        self.min_lr, self.eps = checks.number("min_lr", min_lr, least=0), checks.number("eps", eps, least=0)
        rates = [group["lr"] for group in optimizer.param_groups]
        #: The optimizer's rate when the schedule was made; with several groups, theirs.
        self.base_lr: float | list[float] = rates[0] if len(rates) == 1 else rates
        self.best = inf if mode == "min" else -inf
        self.bad_steps = self.cooling = 0

    @property
    def lr(self) -> float | list[float]:
        """The optimizer's rate; with several groups, theirs."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return rates[0] if len(rates) == 1 else rates

    @lr.setter
    def lr(self, rate: float | Sequence[float]) -> None:
        groups = self.optimizer.param_groups
        rates = list(rate) if isinstance(rate, Sequence) else [rate] * len(groups)
        for group, each in zip(groups, rates, strict=True):
            group["lr"] = each

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As for `Schedule`; also `ValueError` if the state is of an optimizer with more or fewer groups."""
        self._rates_in(state, "lr")
        super().load_state_dict(state)

    def step(self, metric: float | Array) -> None:
        """Record the metric, a number or a 0-d array, and reduce the rate after too many steps without improvement."""
        is_array = getattr(metric, "shape", None) == () and dtype_name(getattr(metric, "dtype", None)) in FLOATS
        metric = checks.number("metric", float(metric) if is_array else metric, infinite=True, nan=True)
        if self._improves(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooling:
            self.cooling -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            for group in self.optimizer.param_groups:
                rate = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooling, self.bad_steps = self.cooldown, 0

    def _improves(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            return sign * metric > sign * (self.best * (1.0 + sign * self.threshold))
        return sign * metric > sign * self.best + self.threshold
