"""RAdam: Adam whose first steps do without the second moment, until that is known well enough.

With gradient ``g`` (weight decay added) at step ``t``, counted from 1, and moments ``mean`` ``m`` and ``square``
``s``, 0 at first::

    m = beta1 m + (1 - beta1) g
    s = beta2 s + (1 - beta2) g^2
    rho_max = 2 / (1 - beta2) - 1
    rho = rho_max - 2 t beta2^t / (1 - beta2^t)
    r = sqrt((rho - 4) (rho - 2) rho_max / ((rho_max - 4) (rho_max - 2) rho))
    value -= lr / (1 - beta1^t) * m                                                 for rho <= 5
    value -= lr / (1 - beta1^t) * m * r sqrt(1 - beta2^t) / (sqrt(s) + eps)         else

Source: L. Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend
from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer
from .counters import Counting, Number, as_factor, on_device, on_host, square_root, widest
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State

# The length of the average of squares from which on it is used.
LEAST_LENGTH = 5.0


class RAdam(Counting, Optimizer):
    """Adam with a warm-up of its second moment.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    betas : (float, float)
        Decay rates of the two moments, each at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    decoupled_weight_decay : bool
        Whether weight decay does not pass through the moments, as in `AdamW`.
    capturable : bool
        As for `Adam`.
    """

    settings = ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "betas": partial(checks.numbers, count=2, least=0, below=1),
        "eps": partial(checks.number, above=0),
        "decoupled_weight_decay": checks.flag,
    }
    betas: tuple[float, float]
    eps: float
    decoupled_weight_decay: bool

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        capturable: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self.capturable = checks.flag("capturable", capturable)
        self._configure(betas=betas, eps=eps, decoupled_weight_decay=decoupled_weight_decay)

    @property
    def decoupled(self) -> bool:
        """``decoupled_weight_decay``."""
        return self.decoupled_weight_decay

    def _state_names(self) -> tuple[str, ...]:
        return ("mean", "square")

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Advance ``steps``, ``power1 = beta1^t`` and ``power2 = beta2^t``.

        Returns the rate, 1 or 0 for a step without or with the second moment, and the factor of its inverse root.
        """
        beta1, beta2 = self.betas
        place = on_device if self.capturable else on_host
        power1, power2 = place(stored.get("power1", 1.0), b, beta1), place(stored.get("power2", 1.0), b, beta2)
        steps = place(stored.get("steps", 0), b) + 1
        stored.update(power1=power1, power2=power2, steps=b.xp.asarray(steps) if self.capturable else steps)
        rate = self.lr / (1.0 - power1)
        longest = 2.0 * (1.0 / (1.0 - beta2)) - 1.0
        if longest <= LEAST_LENGTH:
            # The square never counts, and the scale below may divide by 0.
            return rate, 1.0, 0.0
        if hasattr(steps, "dtype"):
            steps = b.xp.astype(steps, widest(b))
        length = longest - 2.0 * steps * power2 / (1.0 - power2)
        share = longest / ((longest - 4.0) * (longest - 2.0))
        if not hasattr(length, "dtype"):
            if length <= LEAST_LENGTH:
                return rate, 1.0, 0.0
            return rate, 0.0, square_root((length - 4.0) * (length - 2.0) * share / length * (1.0 - power2), b)
        xp = b.xp
        counts, nothing, one = length > LEAST_LENGTH, xp.zeros_like(length), xp.ones_like(length)
        usable = xp.where(counts, length, one * LEAST_LENGTH)
        scale = xp.sqrt((usable - 4.0) * (usable - 2.0) * share / usable * (1.0 - power2))
        return rate, xp.where(counts, nothing, one), xp.where(counts, scale, nothing)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        mean, square = state.arrays["mean"], state.arrays["square"]
        (beta1, beta2), (rate, plain, scale) = (
            self.betas,
            (as_factor(number, gradient, xp) for number in state.numbers),
        )
        mean *= beta1
        mean += gradient * (1.0 - beta1)
        square *= beta2
        square += gradient * gradient * (1.0 - beta2)
        return mean * rate * (scale * (1.0 / (xp.sqrt(square) + self.eps)) + plain)

    def _fused_update(self) -> FusedUpdate | None:
        decay, shrink = self._decay_and_shrink()
        settings = (*self.betas, self.eps, decay, shrink, *(1.0 - beta for beta in self.betas))
        return None if self.capturable else FusedUpdate("radam", settings)
