"""The one-cycle schedule: the rate goes up and down once, the momentum the other way round.

From ``max_lr / div_factor`` up to ``max_lr`` in the first ``pct_start`` of the steps, then down to
``max_lr / div_factor / final_div_factor``, along cosines or lines; with three phases down to ``max_lr / div_factor`` in
as many steps as up, and then to the last rate.

Source: L. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning rates",
2018, in PyTorch's form.
"""

from collections.abc import Sequence

from ...common import checks
from ...common.portable_math import cosine_pi
from ..optimizers import Optimizer
from .base import TimedSchedule


class OneCycleLR(TimedSchedule):
    """Up to ``max_lr`` and down again, with the momentum (Adam's first beta) the other way round.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or sequence of float
        The highest rate, above 0: of all groups of parameters, whatever their own rates, or one for each.
    total_steps : int
        Steps of the cycle; a further step is an error.
    pct_start : float
        Fraction of the cycle in which the rate goes up, from 0 to 1.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether to set the momentum too; the optimizer must have one.
    base_momentum, max_momentum : float
        The momentum at the highest rate, and at both ends.
    div_factor, final_div_factor : float
        The first rate is ``max_lr / div_factor``, the last is the first divided by ``final_div_factor``.
    three_phase : bool
        Whether to return to the first rate before the last phase, instead of going straight to the last rate.
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
        max_lr: float | Sequence[float],
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
        groups = len(optimizer.param_groups)
        self.max_lr: float | tuple[float, ...] = (
            checks.number("max_lr", max_lr, above=0)
            if checks.is_number(max_lr) or groups == 1
            else checks.numbers("max_lr", max_lr, groups, above=0)
        )
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
        """From the first rate to the highest to the last."""
        highest = self.max_lr[self._place] if isinstance(self.max_lr, Sequence) else self.max_lr
        first = highest / self.div_factor
        back = (first,) if self.three_phase else ()
        return self._along(step, (first, highest, *back, first / self.final_div_factor))

    def momentum(self, step: int) -> float:
        """From the highest momentum to the lowest and back."""
        rest = (self.max_momentum,) * (2 if self.three_phase else 1)
        return self._along(step, (self.max_momentum, self.base_momentum, *rest))

    def step(self) -> None:
        """Advance to the next step; `ValueError` after the last."""
        if self.taken >= self.total_steps:
            raise ValueError(f"the cycle has {self.total_steps} steps, and all are done")
        super().step()

    def _set(self) -> None:
        super()._set()
        if self.cycle_momentum:
            value = self.momentum(self.taken)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (value, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = value
                else:
                    # Of a rule that does not list it among its settings.
                    vars(self.optimizer)["momentum"] = value

    def _along(self, step: int, values: tuple[float, ...]) -> float:
        """The value at a step, between those at the two ends of its phase; a step after the last extends that phase."""
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
