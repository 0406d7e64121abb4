"""Lion: the sign of an average of gradients, so that all entries move by the rate.

With gradient ``g`` and ``mean`` ``m``, 0 at first::

    c = beta1 m + (1 - beta1) g
    m = beta2 m + (1 - beta2) g
    value = value (1 - lr weight_decay) - lr sign(c)

Rates are usually three to ten times smaller than Adam's, and weight decay as many times larger.

Source: X. Chen et al., "Symbolic discovery of optimization algorithms", 2023.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from ...common import checks
from ...common.types import Array, Namespace
from ...layers.core.elementwise import sign
from .base import Optimizer
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State


class Lion(Optimizer):
    """Steps of one size, in the direction of an average of gradients; one array is kept for each parameter.

    Parameters
    ----------
    parameters, lr, maximize
        As for `Optimizer`.
    betas : (float, float)
        The part of the average in the direction, and the average's decay rate; each at least 0 and below 1.
    weight_decay : float
        Subtracts ``lr * weight_decay * value`` from the value, whatever the gradient.
    """

    decoupled = True
    settings = ("lr", "betas", "weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "betas": partial(checks.numbers, count=2, least=0, below=1),
    }
    betas: tuple[float, float]

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self._configure(betas=betas)

    def _state_names(self) -> tuple[str, ...]:
        return ("mean",)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        mean, (beta1, beta2) = state.arrays["mean"], self.betas
        direction = mean * beta1 + gradient * (1.0 - beta1)
        mean *= beta2
        mean += gradient * (1.0 - beta2)
        return sign(direction, xp) * self.lr

    def _fused_update(self) -> FusedUpdate:
        settings = (self.lr, 1.0 - self.lr * self.weight_decay, *self.betas, *(1.0 - beta for beta in self.betas))
        return FusedUpdate("lion", settings)
