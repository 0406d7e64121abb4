"""NAdam: Adam that looks ahead, as Nesterov's momentum does, with a momentum that grows.

With gradient ``g`` (weight decay added) at step ``t``, counted from 1, and moments ``mean`` ``m`` and ``square``
``s``, 0 at first::

    mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2)
    m = beta1 m + (1 - beta1) g
    s = beta2 s + (1 - beta2) g^2
    value -= lr (g (1 - mu_t) / (1 - mu_1 ... mu_t) + m mu_t+1 / (1 - mu_1 ... mu_t+1))
             / (sqrt(s) / sqrt(1 - beta2^t) + eps)

Source: T. Dozat, "Incorporating Nesterov momentum into Adam", 2016, in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend
from ...common import checks
from ...common.portable_math import exponential
from ...common.types import Array, Namespace
from .base import Optimizer
from .counters import Counting, Number, as_factor, on_device, on_host, square_root
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State

LOG_096 = -0.040821994520255166


class NAdam(Counting, Optimizer):
    """Adam with Nesterov's momentum.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    betas : (float, float)
        Decay rates of the two moments, each at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    momentum_decay : float
        How fast the momentum grows from half of the first beta to all of it, at least 0.
    decoupled_weight_decay : bool
        Whether weight decay does not pass through the moments, as in `AdamW`.
    capturable : bool
        As for `Adam`.
    """

    settings = ("lr", "betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "betas": partial(checks.numbers, count=2, least=0, below=1),
        "eps": partial(checks.number, above=0),
        "momentum_decay": partial(checks.number, least=0),
        "decoupled_weight_decay": checks.flag,
    }
    betas: tuple[float, float]
    eps: float
    momentum_decay: float
    decoupled_weight_decay: bool

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        capturable: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self.capturable = checks.flag("capturable", capturable)
        self._configure(
            betas=betas, eps=eps, momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay
        )

    @property
    def decoupled(self) -> bool:
        """``decoupled_weight_decay``."""
        return self.decoupled_weight_decay

    def _state_names(self) -> tuple[str, ...]:
        return ("mean", "square")

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Advance ``power2 = beta2^t``, ``warmth = 0.96^(t momentum_decay)`` and the product of the momenta.

        Returns the factor of the root, and the rates of gradient and mean.
        """
        beta1, beta2 = self.betas
        place = on_device if self.capturable else on_host
        factor = self._factor()
        power2, warmth = place(stored.get("power2", 1.0), b, beta2), place(stored.get("warmth", 1.0), b, factor)
        momentum, ahead = beta1 * (1.0 - 0.5 * warmth), beta1 * (1.0 - 0.5 * (warmth * factor))
        product = place(stored.get("product", 1.0), b, momentum)
        stored.update(power2=power2, warmth=warmth, product=product)
        of_gradient = self.lr * (1.0 - momentum) / (1.0 - product)
        of_mean = self.lr * ahead / (1.0 - product * ahead)
        return 1.0 / square_root(1.0 - power2, b), of_gradient, of_mean

    def _factor(self) -> float:
        """``0.96^momentum_decay``, with the same bits on every machine."""
        return exponential(LOG_096 * self.momentum_decay)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        mean, square = state.arrays["mean"], state.arrays["square"]
        (beta1, beta2), (correction, of_gradient, of_mean) = (
            self.betas,
            (as_factor(number, gradient, xp) for number in state.numbers),
        )
        mean *= beta1
        mean += gradient * (1.0 - beta1)
        square *= beta2
        square += gradient * gradient * (1.0 - beta2)
        root = xp.sqrt(square) * correction + self.eps
        return (gradient * of_gradient + mean * of_mean) / root

    def _fused_update(self) -> FusedUpdate | None:
        decay, shrink = self._decay_and_shrink()
        settings = (*self.betas, self.eps, decay, shrink, *(1.0 - beta for beta in self.betas))
        return None if self.capturable else FusedUpdate("nadam", settings)
