"""Adamax: Adam with the largest gradient, which decays, in place of the root mean square.

With gradient ``g`` (weight decay added) at step ``t``, counted from 1, ``mean`` ``m`` and ``largest`` ``u``, 0 at
first::

    m = beta1 m + (1 - beta1) g
    u = max(beta2 u, |g| + eps)
    value -= lr / (1 - beta1^t) * m / u

Source: D. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, section 7.1, in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend
from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer
from .counters import Counting, Number, as_factor, on_device, on_host
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State


class Adamax(Counting, Optimizer):
    """Steps of the mean gradient divided by the largest gradient, which decays.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    betas : (float, float)
        Decay rates of the mean and of the largest gradient, each at least 0 and below 1.
    eps : float
        Added to the size of each gradient, above 0.
    capturable : bool
        As for `Adam`.
    """

    settings = ("lr", "betas", "eps", "weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "betas": partial(checks.numbers, count=2, least=0, below=1),
        "eps": partial(checks.number, above=0),
    }
    betas: tuple[float, float]
    eps: float

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        capturable: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self.capturable = checks.flag("capturable", capturable)
        self._configure(betas=betas, eps=eps)

    def _state_names(self) -> tuple[str, ...]:
        return ("mean", "largest")

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Multiply ``power1 = beta1^t``; returns the rate."""
        place = on_device if self.capturable else on_host
        stored["power1"] = power1 = place(stored.get("power1", 1.0), b, self.betas[0])
        return (self.lr / (1.0 - power1),)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        mean, largest = state.arrays["mean"], state.arrays["largest"]
        (rate,), (beta1, beta2) = state.numbers, self.betas
        mean *= beta1
        mean += gradient * (1.0 - beta1)
        largest *= beta2
        largest[...] = xp.maximum(largest, xp.abs(gradient) + self.eps)
        return mean / largest * as_factor(rate, gradient, xp)

    def _fused_update(self) -> FusedUpdate:
        settings = (*self.betas, self.eps, self.weight_decay, 1.0 - self.betas[0])
        if not self.capturable:
            return FusedUpdate("adamax", settings)
        return FusedUpdate("adamax on the device", (*settings, self.lr), {"power1": 1.0})
