"""Adadelta: steps whose size follows from those before, so that the rate has no unit.

With gradient ``g`` (weight decay added), ``square`` ``s`` and ``delta`` ``d``, 0 at first::

    s = rho s + (1 - rho) g^2
    step = sqrt(d + eps) / sqrt(s + eps) * g
    d = rho d + (1 - rho) step^2
    value -= lr step

Source: M. Zeiler, "Adadelta: an adaptive learning rate method", 2012, in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State


class Adadelta(Optimizer):
    """Steps of the size of those before, scaled by the running root mean square of the gradient.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`; the rate is a factor of the step, 1 in the paper.
    rho : float
        Decay rate of both mean squares, at least 0 and below 1.
    eps : float
        Added to the mean squares, above 0; it decides the first steps.
    """

    settings = ("lr", "rho", "eps", "weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "rho": partial(checks.number, least=0, below=1),
        "eps": partial(checks.number, above=0),
    }
    rho: float
    eps: float

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self._configure(rho=rho, eps=eps)

    def _state_names(self) -> tuple[str, ...]:
        return ("square", "delta")

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        square, delta = state.arrays["square"], state.arrays["delta"]
        square *= self.rho
        square += gradient * gradient * (1.0 - self.rho)
        step = xp.sqrt(delta + self.eps) / xp.sqrt(square + self.eps) * gradient
        delta *= self.rho
        delta += step * step * (1.0 - self.rho)
        return step * self.lr

    def _fused_update(self) -> FusedUpdate:
        return FusedUpdate("adadelta", (self.lr, self.weight_decay, self.rho, self.eps, 1.0 - self.rho))
