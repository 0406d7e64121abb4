"""Learning-rate schedules: the rate as a function of the step.

A schedule holds an optimizer and sets its ``lr`` (one-cycle its momentum too): once when it is made, for step 0, and
at each `Schedule.step`, for the next one. The formulas are PyTorch's; they are computed on the host from the step
alone, so nothing accumulates and a schedule goes on anywhere. Cosines come from a polynomial in ``+ - * /``, because
`math.cos` may differ in the last bit from one machine to the next.

With base rate ``lr`` and step ``t``, counted from 0:

==================  =========================================================================
StepLR              ``lr * gamma^floor(t / step_size)``
ExponentialLR       ``lr * gamma^t``
CosineLR            ``lr (t + 1) / warmup`` for ``t < warmup``, then
                    ``minimum + (lr - minimum) (1 + cos(pi (t - warmup) / (steps - warmup))) / 2``
OneCycleLR          from ``max_lr / div_factor`` up to ``max_lr`` in the first ``pct_start`` of the steps, then
                    down to ``max_lr / div_factor / final_div_factor``, along cosines or lines
ReduceLROnPlateau   ``lr * factor`` whenever a metric has not improved for ``patience`` steps
==================  =========================================================================

Sources: I. Loshchilov and F. Hutter, "SGDR", 2017 (cosine); L. Smith and N. Topin, "Super-convergence", 2018
(one-cycle).
"""

from collections.abc import Mapping
from math import inf, pi
from typing import Any, ClassVar

from ..layers.geometry import count, is_integer
from .optimizer import Optimizer, in_range


def cosine_pi(x: float) -> float:
    """``cos(pi x)`` for ``0 <= x <= 1``, the same bits on every machine, to 1e-15."""
    if x > 0.5:
        return -cosine_pi(1.0 - x)
    if x > 0.25:
        return _sine((0.5 - x) * pi)
    return _cosine(x * pi)


def _cosine(angle: float) -> float:
    square, value = angle * angle, 1.0
    for n in range(18, 0, -2):
        value = 1.0 - value * square / (n * (n - 1))
    return value


def _sine(angle: float) -> float:
    square, value = angle * angle, 1.0
    for n in range(19, 1, -2):
        value = 1.0 - value * square / (n * (n - 1))
    return angle * value


def _power(base: float, exponent: int) -> float:
    """``base^exponent`` by repeated multiplication: `pow` is not the same bits everywhere."""
    value = 1.0
    for _ in range(exponent):
        value *= base
    return value


class Schedule:
    """Base of the schedules that are functions of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Its ``lr`` is the base rate.

    Attributes
    ----------
    steps : int
        Steps taken: the rate now set is that of this step.
    """

    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} takes an optimizer, got {optimizer!r}")
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.taken = 0

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} defines no rate")

    def step(self) -> None:
        """Go on to the next step and set its rate."""
        self.taken += 1
        self._set()

    def _set(self) -> None:
        self.optimizer.lr = self.rate(self.taken)

    def state_dict(self) -> dict[str, Any]:
        """Settings, base rate and steps taken."""
        return {name: getattr(self, name) for name in (*self.settings, "base_lr", "taken")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a schedule of this kind; `ValueError` if it is of another."""
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict takes {', '.join(mine)}; got {', '.join(state) or 'nothing'}"
            )
        for name, value in state.items():
            setattr(self, name, value)
        self._set()

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name)!r}" for name in self.settings)
        return f"{type(self).__name__}({self.optimizer!r}{options})"


class StepLR(Schedule):
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
        self.step_size, self.gamma = count(step_size, "step_size"), in_range("gamma", gamma, above=0.0)

    def rate(self, step: int) -> float:
        """``lr * gamma^floor(step / step_size)``."""
        return self.base_lr * _power(self.gamma, step // self.step_size)


class ExponentialLR(Schedule):
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
        self.gamma = in_range("gamma", gamma, above=0.0)

    def rate(self, step: int) -> float:
        """``lr * gamma^step``."""
        return self.base_lr * _power(self.gamma, step)


class CosineLR(Schedule):
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
        self.total_steps, self.minimum = count(total_steps, "total_steps"), in_range("minimum", minimum)
        if not is_integer(warmup) or not 0 <= warmup < total_steps:
            raise ValueError(f"warmup takes an integer from 0 to {total_steps - 1}, got {warmup!r}")
        self.warmup = warmup
        self._set()

    def rate(self, step: int) -> float:
        """The table at the top of this file."""
        if step < self.warmup:
            return self.base_lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / (self.total_steps - self.warmup))
        return self.minimum + (self.base_lr - self.minimum) * (1.0 + cosine_pi(done)) * 0.5


class OneCycleLR(Schedule):
    """Up to ``max_lr`` and down again, with the momentum (Adam's first beta) the other way round.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float
        The highest rate, above 0.
    total_steps : int
        Steps of the cycle, at least 2; a step beyond is an error.
    pct_start : float
        Part of the cycle that goes up, between 0 and 1.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether to move the momentum too; the optimizer must have one.
    base_momentum, max_momentum : float
        The momentum at the highest rate, and at both ends.
    div_factor, final_div_factor : float
        The first rate is ``max_lr / div_factor``, the last that by ``final_div_factor``.
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
    )

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
    ) -> None:
        super().__init__(optimizer)
        self.max_lr = in_range("max_lr", max_lr, above=0.0)
        self.total_steps = count(total_steps, "total_steps")
        self.pct_start = in_range("pct_start", pct_start, most=1.0)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy takes 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_strategy = anneal_strategy
        self.base_momentum = in_range("base_momentum", base_momentum, below=1.0)
        self.max_momentum = in_range("max_momentum", max_momentum, below=1.0)
        self.div_factor = in_range("div_factor", div_factor, above=0.0)
        self.final_div_factor = in_range("final_div_factor", final_div_factor, above=0.0)
        self.cycle_momentum = bool(cycle_momentum)
        if cycle_momentum and not (hasattr(optimizer, "betas") or getattr(optimizer, "momentum", None)):
            raise ValueError(f"cycle_momentum needs an optimizer with momentum, got {optimizer!r}")
        self._set()

    def rate(self, step: int) -> float:
        """Along the cycle from the first rate to the highest to the last."""
        first = self.max_lr / self.div_factor
        return self._along(step, first, self.max_lr, first / self.final_div_factor)

    def momentum(self, step: int) -> float:
        """Along the cycle from the highest momentum to the lowest and back."""
        return self._along(step, self.max_momentum, self.base_momentum, self.max_momentum)

    def step(self) -> None:
        """Go on to the next step; `ValueError` beyond the last."""
        if self.taken + 1 >= self.total_steps + 1:
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

    def _along(self, step: int, start: float, middle: float, end: float) -> float:
        top = self.pct_start * self.total_steps - 1.0
        last = self.total_steps - 1.0
        if step <= top:
            return self._between(start, middle, step / top if top else 1.0)
        return self._between(middle, end, (step - top) / (last - top) if last > top else 1.0)

    def _between(self, a: float, b: float, part: float) -> float:
        if self.anneal_strategy == "linear":
            return a + (b - a) * part
        return b + (a - b) * 0.5 * (1.0 + _beyond(part))


def _beyond(part: float) -> float:
    """``cos(pi part)``, also a little outside ``[0, 1]``, where PyTorch's last step falls."""
    part = abs(part)
    return cosine_pi(part) if part <= 1.0 else -cosine_pi(part - 1.0)


class ReduceLROnPlateau:
    """The rate times ``factor`` when a metric has stopped to improve.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether less is better, or more.
    factor : float
        Above 0 and below 1.
    patience : int
        Steps without improvement that are let pass.
    threshold : float
        How much counts as improvement.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is a part of the best value or an amount.
    cooldown : int
        Steps after a reduction in which none is counted.
    min_lr : float
        Lower bound of the rate.
    eps : float
        A smaller change of the rate is not made.
    """

    settings = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")

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
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ReduceLROnPlateau takes an optimizer, got {optimizer!r}")
        for name, value, taken in (("mode", mode, ("min", "max")), ("threshold_mode", threshold_mode, ("rel", "abs"))):
            if value not in taken:
                raise ValueError(f"{name} takes {taken[0]!r} or {taken[1]!r}, got {value!r}")
        for name, steps in (("patience", patience), ("cooldown", cooldown)):
            if not is_integer(steps) or steps < 0:
                raise ValueError(f"{name} takes an integer >= 0, got {steps!r}")
        self.optimizer = optimizer
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor = in_range("factor", factor, above=0.0, below=1.0)
        self.patience, self.cooldown = patience, cooldown
        self.threshold, self.min_lr = in_range("threshold", threshold), in_range("min_lr", min_lr)
        self.eps = in_range("eps", eps)
        self.best = inf if mode == "min" else -inf
        self.bad_steps = self.cooling = 0

    def step(self, metric: float) -> None:
        """Take note of the metric, and reduce the rate if it is time."""
        metric = float(metric)
        if self._improves(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooling:
            self.cooling -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            rate = max(self.optimizer.lr * self.factor, self.min_lr)
            if self.optimizer.lr - rate > self.eps:
                self.optimizer.lr = rate
            self.cooling, self.bad_steps = self.cooldown, 0

    def _improves(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            return sign * metric > sign * (self.best * (1.0 + sign * self.threshold))
        return sign * metric > sign * self.best + self.threshold

    def state_dict(self) -> dict[str, Any]:
        """Settings and what was seen so far."""
        return {name: getattr(self, name) for name in (*self.settings, "best", "bad_steps", "cooling")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; `ValueError` if it is not one of this kind."""
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(
                f"ReduceLROnPlateau.load_state_dict takes {', '.join(mine)}; got {', '.join(state) or 'nothing'}"
            )
        for name, value in state.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name)!r}" for name in self.settings)
        return f"ReduceLROnPlateau({self.optimizer!r}{options})"
