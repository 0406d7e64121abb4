"""Learning-rate schedules: the rate as a function of the step.

A schedule holds an optimizer and sets its ``lr`` (one-cycle its momentum too): once when it is made, for step 0, and
at each ``step()``, for the next one. The formulas are PyTorch's, closed: nothing accumulates.

With base rate ``lr`` and step ``t``, counted from 0:

==================  =========================================================================
StepLR              ``lr * gamma^floor(t / step_size)``
ExponentialLR       ``lr * gamma^t``
CosineLR            ``lr (t + 1) / warmup`` for ``t < warmup``, then
                    ``minimum + (lr - minimum) (1 + cos(pi (t - warmup) / (steps - warmup))) / 2``
OneCycleLR          from ``max_lr / div_factor`` up to ``max_lr`` in the first ``pct_start`` of the steps, then
                    down to ``max_lr / div_factor / final_div_factor``, along cosines or lines; with three
                    phases down to ``max_lr / div_factor`` in as many steps as up, and on to the last rate
ReduceLROnPlateau   ``lr * factor`` whenever a metric has not improved for ``patience`` steps
==================  =========================================================================

Sources: I. Loshchilov and F. Hutter, "SGDR", 2017 (cosine); L. Smith and N. Topin, "Super-convergence", 2018
(one-cycle).
"""

from typing import Any

from ...common import checks
from ..optimizers.base import Optimizer
from .base import TimedSchedule, cosine_pi, power
from .plateau import ReduceLROnPlateau

__all__ = ["CosineLR", "ExponentialLR", "OneCycleLR", "ReduceLROnPlateau", "StepLR"]


class StepLR(TimedSchedule):
    """The rate times ``gamma`` after every ``step_size`` steps.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        At least 1.
    gamma : float
        Above 0.
    """

    settings = ("step_size", "gamma")

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        self.step_size = checks.integer("step_size", step_size, 1)
        self.gamma = checks.number("gamma", gamma, above=0)

    def rate(self, step: int) -> float:
        """``lr * gamma^floor(step / step_size)``."""
        return self.base_lr * power(self.gamma, step // self.step_size)


class ExponentialLR(TimedSchedule):
    """The rate times ``gamma`` after every step.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
        Above 0.
    """

    settings = ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        super().__init__(optimizer)
        self.gamma = checks.number("gamma", gamma, above=0)

    def rate(self, step: int) -> float:
        """``lr * gamma^step``."""
        return self.base_lr * power(self.gamma, step)


class CosineLR(TimedSchedule):
    """Half a cosine from the base rate down to a minimum, after a warm-up along a line.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
        Steps until the minimum, warm-up included; it stays there afterwards.
    minimum : float
        The last rate, at least 0.
    warmup : int
        Steps of the warm-up, fewer than ``total_steps``; the base rate is reached at its last.
    """

    settings = ("total_steps", "minimum", "warmup")

    def __init__(self, optimizer: Optimizer, total_steps: int, minimum: float = 0.0, warmup: int = 0) -> None:
        super().__init__(optimizer)
        self.total_steps = checks.integer("total_steps", total_steps, 1)
        self.minimum = checks.number("minimum", minimum, least=0)
        self.warmup = checks.integer("warmup", warmup, 0, self.total_steps - 1)
        self._set()

    def rate(self, step: int) -> float:
        """The table at the top of this file."""
        if step < self.warmup:
            return self.base_lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / (self.total_steps - self.warmup))
        return self.minimum + (self.base_lr - self.minimum) * (1.0 + cosine_pi(done)) * 0.5


class OneCycleLR(TimedSchedule):
    """Up to ``max_lr`` and down again, with the momentum (Adam's first beta) the other way round.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float
        The highest rate, above 0.
    total_steps : int
        Steps of the cycle; a step beyond is an error.
    pct_start : float
        Part of the cycle that goes up, between 0 and 1.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether to move the momentum too; the optimizer must have that setting.
    base_momentum, max_momentum : float
        The momentum at the highest rate, and at both ends.
    div_factor, final_div_factor : float
        The first rate is ``max_lr / div_factor``, the last that by ``final_div_factor``.
    three_phase : bool
        Whether to come back to the first rate before the last phase, instead of going straight to the last rate.
    """

    settings = (
        "max_lr",
        "total_steps",
        "pct_start",
        "anneal_strategy",
        "cycle_momentum",
        "base_momentum",
        "max_momentum",
        "div_factor",
        "final_div_factor",
        "three_phase",
    )
    ends = True

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        super().__init__(optimizer)
        self.max_lr = checks.number("max_lr", max_lr, above=0)
        self.total_steps = checks.integer("total_steps", total_steps, 1)
        self.pct_start = checks.number("pct_start", pct_start, least=0, most=1)
        self.anneal_strategy = checks.choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.base_momentum = checks.number("base_momentum", base_momentum, least=0, below=1)
        self.max_momentum = checks.number("max_momentum", max_momentum, least=0, below=1)
        self.div_factor = checks.number("div_factor", div_factor, above=0)
        self.final_div_factor = checks.number("final_div_factor", final_div_factor, above=0)
        self.cycle_momentum = checks.flag("cycle_momentum", cycle_momentum)
        self.three_phase = checks.flag("three_phase", three_phase)
        if self.cycle_momentum and not (hasattr(optimizer, "betas") or hasattr(optimizer, "momentum")):
            raise ValueError(
                f"cycle_momentum needs an optimizer with momentum, got {optimizer!r}; set cycle_momentum=False"
            )
        self._set()

    def rate(self, step: int) -> float:
        """Along the cycle from the first rate to the highest to the last."""
        first = self.max_lr / self.div_factor
        back = (first,) if self.three_phase else ()
        return self._along(step, (first, self.max_lr, *back, first / self.final_div_factor))

    def momentum(self, step: int) -> float:
        """Along the cycle from the highest momentum to the lowest and back."""
        rest = (self.max_momentum,) * (2 if self.three_phase else 1)
        return self._along(step, (self.max_momentum, self.base_momentum, *rest))

    def step(self) -> None:
        """Go on to the next step; `ValueError` beyond the last."""
        if self.taken >= self.total_steps:
            raise ValueError(f"the cycle has {self.total_steps} steps, and all are taken")
        super().step()

    def _set(self) -> None:
        super()._set()
        if self.cycle_momentum:
            value = self.momentum(self.taken)
            optimizer: Any = self.optimizer
            if hasattr(optimizer, "betas"):
                optimizer.betas = (value, *optimizer.betas[1:])
            else:
                optimizer.momentum = value

    def _along(self, step: int, values: tuple[float, ...]) -> float:
        """Between the two values whose phase the step is in; the step after the last prolongs the last phase."""
        top, last = self.pct_start * self.total_steps - 1.0, self.total_steps - 1.0
        ends = (top, 2.0 * top, last) if self.three_phase else (top, last)
        phase = next((i for i, end in enumerate(ends[:-1]) if step <= end), len(ends) - 1)
        start, end = (0.0, *ends)[phase], ends[phase]
        part = (step - start) / (end - start) if end != start else 1.0
        return self._between(values[phase], values[phase + 1], part)

    def _between(self, a: float, b: float, part: float) -> float:
        if self.anneal_strategy == "linear":
            return a + (b - a) * part
        return b + (a - b) * 0.5 * (1.0 + cosine_pi(part))
