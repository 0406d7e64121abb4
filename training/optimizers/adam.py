"""Adam, and AdamW, whose weight decay does not pass through the moments.

With gradient ``g`` (Adam: weight decay added) at step ``t``, counted from 1, and moments ``mean`` ``m`` and ``square``
``s``, 0 at first::

    m = beta1 m + (1 - beta1) g
    s = beta2 s + (1 - beta2) g^2
    value -= lr / (1 - beta1^t) * m / (sqrt(s) / sqrt(1 - beta2^t) + eps)

With amsgrad the largest ``s`` so far, ``largest``, is in place of ``s`` in the root. AdamW multiplies the value by
``1 - lr weight_decay`` before the step, and adds nothing to the gradient.

Sources: D. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015; S. Reddi, S. Kale and S. Kumar, "On
the convergence of Adam and beyond", 2018 (amsgrad); I. Loshchilov and F. Hutter, "Decoupled weight decay
regularization", 2019; in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend
from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer
from .counters import Counting, Number, as_factor, on_device, on_host, square_root
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State


class Adam(Counting, Optimizer):
    """Steps scaled by running moments of the gradient.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    betas : (float, float)
        Decay rates of the two moments, each at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    capturable : bool
        Whether the powers of the decay rates are kept on the device: the same steps, and a few more small operations
        for each parameter. `Backend.compile` needs it, and sets it on CuPy.
    amsgrad : bool
        Whether to divide by the largest second moment so far.
    """

    settings = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "betas": partial(checks.numbers, count=2, least=0, below=1),
        "eps": partial(checks.number, above=0),
        "amsgrad": checks.flag,
    }
    betas: tuple[float, float]
    eps: float
    amsgrad: bool

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        capturable: bool = False,
        *,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self.capturable = checks.flag("capturable", capturable)
        self._configure(betas=betas, eps=eps, amsgrad=amsgrad)

    def _state_names(self) -> tuple[str, ...]:
        return ("mean", "square", "largest") if self.amsgrad else ("mean", "square")

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Multiply ``power1 = beta1^t`` and ``power2 = beta2^t``; returns ``1 / sqrt(1 - power2)`` and the rate."""
        beta1, beta2 = self.betas
        place = on_device if self.capturable else on_host
        power1, power2 = place(stored.get("power1", 1.0), b, beta1), place(stored.get("power2", 1.0), b, beta2)
        stored.update(power1=power1, power2=power2)
        return 1.0 / square_root(1.0 - power2, b), self.lr / (1.0 - power1)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        mean, square = state.arrays["mean"], state.arrays["square"]
        (correction, rate), (beta1, beta2) = state.numbers, self.betas
        mean *= beta1
        mean += gradient * (1.0 - beta1)
        square *= beta2
        square += gradient * gradient * (1.0 - beta2)
        if self.amsgrad:
            largest = state.arrays["largest"]
            largest[...] = square = xp.maximum(largest, square)
        root = xp.sqrt(square) * as_factor(correction, gradient, xp) + self.eps
        return mean / root * as_factor(rate, gradient, xp)

    def _fused_update(self) -> FusedUpdate:
        settings = (*self.betas, self.eps, *self._decay_and_shrink(), *(1.0 - beta for beta in self.betas))
        rule = "amsgrad" if self.amsgrad else "adam"
        if not self.capturable:
            return FusedUpdate(rule, settings)
        return FusedUpdate(f"{rule} on the device", (*settings, self.lr), {"power1": 1.0, "power2": 1.0})


class AdamW(Adam):
    """Adam with decoupled weight decay: the value shrinks by ``lr * weight_decay``, whatever the gradient.

    Parameters
    ----------
    parameters, lr, betas, eps, capturable, amsgrad, maximize
        As for `Adam`.
    weight_decay : float
        0.01 unless given.
    """

    decoupled = True

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        capturable: bool = False,
        *,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, capturable, amsgrad=amsgrad, maximize=maximize)
