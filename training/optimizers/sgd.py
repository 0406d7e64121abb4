"""Stochastic gradient descent, with momentum.

With gradient ``g`` (weight decay added), momentum ``mu`` and ``velocity`` ``v``, which is ``g`` after the first step::

    v = mu v + (1 - dampening) g
    value -= lr v                   (Nesterov: lr (g + mu v); without momentum: lr g)

Source: I. Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in PyTorch's
form.
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


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    momentum, dampening : float
        From 0 to 1.
    nesterov : bool
        Needs a momentum above 0 and no dampening.
    """

    settings = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "momentum": partial(checks.number, least=0, most=1),
        "dampening": partial(checks.number, least=0, most=1),
        "nesterov": checks.flag,
    }
    momentum: float
    dampening: float
    nesterov: bool

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.01,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self._configure(momentum=momentum, dampening=dampening, nesterov=nesterov)

    def _require_consistent(self) -> None:
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError(
                f"nesterov needs a momentum above 0 and no dampening, got {self.momentum!r} and {self.dampening!r}"
            )

    def _state_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        if not self.momentum:
            return gradient * self.lr
        velocity = state.arrays["velocity"]
        if not state.is_first:
            velocity *= self.momentum
        velocity += gradient if state.is_first or not self.dampening else gradient * (1.0 - self.dampening)
        return (gradient + velocity * self.momentum if self.nesterov else velocity) * self.lr

    def _fused_update(self) -> FusedUpdate:
        if not self.momentum:
            return FusedUpdate("sgd", (self.lr, self.weight_decay))
        settings = (self.lr, self.weight_decay, self.momentum, 1.0 - self.dampening, float(self.nesterov))
        return FusedUpdate("momentum", settings)
