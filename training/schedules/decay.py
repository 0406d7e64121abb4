"""Schedules that multiply the rate by a factor: at each step, or after every few.

With base rate ``lr`` and step ``t``, counted from 0::

    StepLR          lr * gamma^floor(t / step_size)
    ExponentialLR   lr * gamma^t
"""

from ...common import checks
from ...common.portable_math import power
from ..optimizers import Optimizer
from .base import TimedSchedule


class StepLR(TimedSchedule):
    """Multiplies the rate by ``gamma`` after every ``step_size`` steps.

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
    """Multiplies the rate by ``gamma`` after every step.

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
