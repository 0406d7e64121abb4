"""RMSprop: steps scaled by the running root mean square of the gradient.

With gradient ``g`` (weight decay added), ``square`` ``s``, ``mean`` ``m`` and ``velocity`` ``v``, 0 at first::

    s = alpha s + (1 - alpha) g^2
    value -= lr g / (sqrt(s) + eps)

Centered: ``m = alpha m + (1 - alpha) g``, and ``max(s - m^2, 0)`` in place of ``s`` in the root. With momentum ``mu``:
``v = mu v + g / (sqrt(s) + eps)``, and ``value -= lr v``.

Sources: T. Tieleman and G. Hinton, lecture 6.5 of "Neural networks for machine learning", 2012; A. Graves, "Generating
sequences with recurrent neural networks", 2013 (centered); in PyTorch's form.
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


class RMSprop(Optimizer):
    """Steps scaled by the running root mean square of the gradient.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    alpha : float
        Decay rate of the mean square, at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    momentum : float
        From 0 to 1.
    centered : bool
        Whether to divide by the root of the variance instead of the mean square.
    """

    settings = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "alpha": partial(checks.number, least=0, below=1),
        "eps": partial(checks.number, above=0),
        "momentum": partial(checks.number, least=0, most=1),
        "centered": checks.flag,
    }
    alpha: float
    eps: float
    momentum: float
    centered: bool

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self._configure(alpha=alpha, eps=eps, momentum=momentum, centered=centered)

    def _state_names(self) -> tuple[str, ...]:
        return ("square", *(["mean"] if self.centered else []), *(["velocity"] if self.momentum else []))

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        square = state.arrays["square"]
        square *= self.alpha
        square += gradient * gradient * (1.0 - self.alpha)
        spread = square
        if self.centered:
            mean = state.arrays["mean"]
            mean *= self.alpha
            mean += gradient * (1.0 - self.alpha)
            # The variance of a constant gradient is 0, and rounding may make it negative.
            spread = xp.maximum(square - mean * mean, xp.zeros_like(mean))
        scaled = gradient / (xp.sqrt(spread) + self.eps)
        if not self.momentum:
            return scaled * self.lr
        velocity = state.arrays["velocity"]
        velocity *= self.momentum
        velocity += scaled
        return velocity * self.lr

    def _fused_update(self) -> FusedUpdate:
        rest = (self.eps, self.momentum, float(self.centered), 1.0 - self.alpha)
        return FusedUpdate("rmsprop", (self.lr, self.weight_decay, self.alpha, *rest))
