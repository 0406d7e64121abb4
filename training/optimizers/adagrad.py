"""Adagrad: steps scaled by the root of the sum of all squared gradients so far.

With gradient ``g`` (weight decay added) at step ``t``, counted from 1, and ``sum`` ``s``, which starts at
``initial_accumulator_value``::

    s = s + g^2
    value -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)

Source: J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
2011, in PyTorch's form.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend
from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer
from .counters import Counting, Number, as_factor, on_device, on_host, widest
from .group_settings import Check
from .groups import Grouped
from .rule import FusedUpdate, State


class Adagrad(Counting, Optimizer):
    """Steps scaled by the root of the sum of all squared gradients so far.

    Parameters
    ----------
    parameters, lr, weight_decay, maximize
        As for `Optimizer`.
    lr_decay : float
        The rate at step ``t`` is ``lr / (1 + (t - 1) lr_decay)``.
    initial_accumulator_value : float
        Where the sum starts.
    eps : float
        Added to the root, above 0.
    capturable : bool
        Whether steps are counted on the device. `Backend.compile` needs it, and sets it on CuPy.
    """

    settings = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize")
    limits: ClassVar[Mapping[str, Check]] = {
        **Optimizer.limits,
        "lr_decay": partial(checks.number, least=0),
        "initial_accumulator_value": partial(checks.number, least=0),
        "eps": partial(checks.number, above=0),
    }
    lr_decay: float
    initial_accumulator_value: float
    eps: float

    def __init__(
        self,
        parameters: Grouped,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        capturable: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize=maximize)
        self.capturable = checks.flag("capturable", capturable)
        self._configure(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, eps=eps)

    def _state_names(self) -> tuple[str, ...]:
        return ("sum",)

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Count the step in ``steps``; returns the rate."""
        steps = stored.get("steps", 0)
        if self.capturable:
            steps = on_device(steps, b)
            stored["steps"] = b.xp.asarray(steps + 1)
            steps = b.xp.astype(steps, widest(b))
        else:
            steps = on_host(steps, b)
            stored["steps"] = steps + 1
        return (self.lr / (1.0 + steps * self.lr_decay),)

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        total, (rate,) = state.arrays["sum"], state.numbers
        if state.is_first:
            total += self.initial_accumulator_value
        total += gradient * gradient
        return gradient / (xp.sqrt(total) + self.eps) * as_factor(rate, gradient, xp)

    def _fused_update(self) -> FusedUpdate:
        settings = (self.eps, self.weight_decay, self.initial_accumulator_value)
        if not self.capturable:
            return FusedUpdate("adagrad", settings)
        return FusedUpdate("adagrad on the device", (*settings, self.lr, self.lr_decay), {"steps": 0})
