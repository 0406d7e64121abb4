"""The schedule along half a cosine, after a linear warm-up.

With base rate ``lr`` and step ``t``, counted from 0::

    lr (t + 1) / warmup                                                                     for t < warmup
    minimum + (lr - minimum) (1 + cos(pi (t - warmup) / (total_steps - warmup))) / 2        else

Source: I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
"""

from ...common import checks
from ...common.portable_math import cosine_pi
from ..optimizers import Optimizer
from .base import TimedSchedule


class CosineLR(TimedSchedule):
    """Half a cosine from the base rate down to a minimum, after a linear warm-up.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
        Steps until the minimum, warm-up included; the rate stays there afterwards.
    minimum : float
        The last rate, at least 0.
    warmup : int
        Steps of the warm-up, fewer than ``total_steps``; its last step reaches the base rate.
    """

    settings = ("total_steps", "minimum", "warmup")

    def __init__(self, optimizer: Optimizer, total_steps: int, minimum: float = 0.0, warmup: int = 0) -> None:
        super().__init__(optimizer)
        self.total_steps = checks.integer("total_steps", total_steps, 1)
        self.minimum = checks.number("minimum", minimum, least=0)
        self.warmup = checks.integer("warmup", warmup, 0, self.total_steps - 1)
        self._set()

    def rate(self, step: int) -> float:
        """The formula at the top of this file."""
        if step < self.warmup:
            return self.base_lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / (self.total_steps - self.warmup))
        return self.minimum + (self.base_lr - self.minimum) * (1.0 + cosine_pi(done)) * 0.5
