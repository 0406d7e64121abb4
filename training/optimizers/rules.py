"""The rules by which optimizers turn gradients into steps.

With gradient ``g`` (weight decay added, unless decoupled) at step ``t``, counted from 1:

========  ==========================================================================================
SGD       ``v = mu v + (1 - dampening) g`` (``v = g`` at first); step ``lr v``, Nesterov ``lr (g + mu v)``
Adam      ``m = b1 m + (1 - b1) g``, ``s = b2 s + (1 - b2) g^2``;
          step ``lr / (1 - b1^t) * m / (sqrt(s) / sqrt(1 - b2^t) + eps)``
AdamW     as Adam, and ``value *= 1 - lr weight_decay`` in place of a decay of the gradient
RMSprop   ``s = a s + (1 - a) g^2``, centered: ``m = a m + (1 - a) g``, ``max(s - m^2, 0)`` in place of ``s``;
          step ``lr g / (sqrt(s) + eps)``, with momentum ``v = mu v + g / (sqrt(s) + eps)``, step ``lr v``
Adagrad   ``s = s + g^2``; step ``lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)``
========  ==========================================================================================

Sources: I. Sutskever et al., 2013 (momentum); D. Kingma and J. Ba, 2015 (Adam); I. Loshchilov and F. Hutter, 2019
(AdamW); T. Tieleman and G. Hinton, 2012, and A. Graves, 2013 (RMSprop, centered); J. Duchi et al., 2011 (Adagrad); all
in PyTorch's form.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

from ...backends import Backend
from ...backends.engines.numba import Kernels
from ...common import checks
from ...common.types import Array, Namespace
from .base import Optimizer, Rule, Trainable, on_device, widest


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Parameters
    ----------
    parameters, lr, weight_decay
        As for `Optimizer`.
    momentum, dampening : float
        From 0 to 1.
    nesterov : bool
        Needs a momentum above 0 and no dampening.
    """

    settings = ("lr", "momentum", "dampening", "nesterov", "weight_decay")

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 0.01,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = checks.number("momentum", momentum, least=0, most=1)
        self.dampening = checks.number("dampening", dampening, least=0, most=1)
        self.nesterov = checks.flag("nesterov", nesterov)
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError(
                f"nesterov needs a momentum above 0 and no dampening, got {self.momentum!r} and {self.dampening!r}"
            )

    def _memory(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _step(self, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        if not self.momentum:
            return gradient * self.lr
        velocity = known["velocity"]
        velocity *= 0.0 if known["fresh"] else self.momentum
        velocity += gradient if known["fresh"] or not self.dampening else gradient * (1.0 - self.dampening)
        known["velocity"] = velocity
        return (gradient + velocity * self.momentum if self.nesterov else velocity) * self.lr

    def _rule(self) -> Rule:
        if not self.momentum:
            return Rule("sgd", (self.lr, self.weight_decay))
        share, ahead = 1.0 - self.dampening, float(self.nesterov)
        return Rule("momentum", (self.lr, self.weight_decay, self.momentum, share, ahead))

    def _compiled(self, kernels: Kernels, known: dict[str, Any]) -> Callable[..., None]:
        if not self.momentum:
            return partial(kernels.sgd_step, decay=self.weight_decay, rate=self.lr)
        return partial(
            kernels.momentum_step,
            decay=self.weight_decay,
            keep=0.0 if known["fresh"] else self.momentum,
            share=1.0 if known["fresh"] else 1.0 - self.dampening,
            ahead=self.momentum if self.nesterov else 0.0,
            rate=self.lr,
        )


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient.

    Parameters
    ----------
    parameters, lr, weight_decay
        As for `Optimizer`.
    betas : (float, float)
        Decay rates of the two moments, each at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    capturable : bool
        Whether the powers of the decay rates are kept on the device: the same steps, and a few small operations more
        for each parameter. `Backend.compile` needs it, and sets it on CuPy.
    """

    settings = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.capturable = checks.flag("capturable", capturable)
        first, second = checks.numbers("betas", betas, 2, least=0, below=1)
        self.betas = first, second
        self.eps = checks.number("eps", eps, above=0)

    def count_on_device(self) -> None:
        """``capturable`` becomes True."""
        self.capturable = True

    def _memory(self) -> tuple[str, ...]:
        return ("mean", "square")

    def _advance(self, state: dict[str, Any], b: Backend) -> dict[str, Any]:
        first, second = self.betas
        keep = on_device if self.capturable else on_host
        power1, power2 = keep(state.get("power1", 1.0), b, first), keep(state.get("power2", 1.0), b, second)
        state.update(power1=power1, power2=power2)
        root = b.xp.sqrt(1.0 - power2) if self.capturable else sqrt(1.0 - power2)
        return {"shrink": 1.0 / root, "rate": self.lr / (1.0 - power1)}

    def _step(self, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        first, second = self.betas
        mean, square = known["mean"], known["square"]
        mean *= first
        mean += gradient * (1.0 - first)
        square *= second
        square += gradient * gradient * (1.0 - second)
        known.update(mean=mean, square=square)
        root = xp.sqrt(square) * factor(known["shrink"], gradient, xp) + self.eps
        return mean / root * factor(known["rate"], gradient, xp)

    def _rule(self) -> Rule:
        decay = 0.0 if self.decoupled else self.weight_decay
        shrink = 1.0 - self.lr * self.weight_decay if self.decoupled else 1.0
        settings = (*self.betas, self.eps, decay, shrink, *(1.0 - beta for beta in self.betas))
        if not self.capturable:
            return Rule("adam", settings)
        return Rule("adam on the device", (*settings, self.lr), {"power1": 1.0, "power2": 1.0})

    def _numbers(self, known: dict[str, Any]) -> tuple[float, ...]:
        return known["shrink"], known["rate"]

    def _compiled(self, kernels: Kernels, known: dict[str, Any]) -> Callable[..., None] | None:
        if self.capturable:
            return None
        return partial(
            kernels.adam_step,
            decay=0.0 if self.decoupled else self.weight_decay,
            shrink=1.0 - self.lr * self.weight_decay if self.decoupled else 1.0,
            betas=self.betas,
            factor=known["shrink"],
            eps=self.eps,
            rate=known["rate"],
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: the value shrinks by ``lr * weight_decay``, whatever the gradient.

    Parameters
    ----------
    parameters, lr, betas, eps, capturable
        As for `Adam`.
    weight_decay : float
        0.01 unless given.
    """

    decoupled = True

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        capturable: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, capturable)


class RMSprop(Optimizer):
    """Steps scaled by the running root mean square of the gradient.

    Parameters
    ----------
    parameters, lr, weight_decay
        As for `Optimizer`.
    alpha : float
        Decay rate of the mean square, at least 0 and below 1.
    eps : float
        Added to the root, above 0.
    momentum : float
        From 0 to 1.
    centered : bool
        Whether the variance takes the place of the mean square.
    """

    settings = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.alpha = checks.number("alpha", alpha, least=0, below=1)
        self.eps = checks.number("eps", eps, above=0)
        self.momentum = checks.number("momentum", momentum, least=0, most=1)
        self.centered = checks.flag("centered", centered)

    def _memory(self) -> tuple[str, ...]:
        return ("square", *(["mean"] if self.centered else []), *(["velocity"] if self.momentum else []))

    def _rule(self) -> Rule:
        rest = (self.eps, self.momentum, float(self.centered), 1.0 - self.alpha)
        return Rule("rmsprop", (self.lr, self.weight_decay, self.alpha, *rest))

    def _step(self, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        square = known["square"]
        square *= self.alpha
        square += gradient * gradient * (1.0 - self.alpha)
        known["square"] = square
        if self.centered:
            mean = known["mean"]
            mean *= self.alpha
            mean += gradient * (1.0 - self.alpha)
            known["mean"] = mean
            # Of a steady gradient it is 0, and rounding may leave less.
            square = xp.maximum(square - mean * mean, xp.zeros_like(mean))
        scaled = gradient / (xp.sqrt(square) + self.eps)
        if not self.momentum:
            return scaled * self.lr
        velocity = known["velocity"]
        velocity *= self.momentum
        velocity += scaled
        known["velocity"] = velocity
        return velocity * self.lr


class Adagrad(Optimizer):
    """Steps scaled by the root of the sum of all squared gradients so far.

    Parameters
    ----------
    parameters, lr, weight_decay
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

    settings = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        capturable: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.capturable = checks.flag("capturable", capturable)
        self.lr_decay = checks.number("lr_decay", lr_decay, least=0)
        self.initial_accumulator_value = checks.number("initial_accumulator_value", initial_accumulator_value, least=0)
        self.eps = checks.number("eps", eps, above=0)

    def count_on_device(self) -> None:
        """``capturable`` becomes True."""
        self.capturable = True

    def _memory(self) -> tuple[str, ...]:
        return ("sum",)

    def _advance(self, state: dict[str, Any], b: Backend) -> dict[str, Any]:
        steps = (on_device if self.capturable else on_host)(state.get("steps", 0), b)
        state["steps"] = b.xp.asarray(steps + 1) if self.capturable else steps + 1
        wide = b.xp.astype(steps, widest(b)) if self.capturable else steps
        return {"rate": self.lr / (1.0 + wide * self.lr_decay)}

    def _rule(self) -> Rule:
        settings = (self.eps, self.weight_decay, self.initial_accumulator_value)
        if not self.capturable:
            return Rule("adagrad", settings)
        return Rule("adagrad on the device", (*settings, self.lr, self.lr_decay), {"steps": 0})

    def _numbers(self, known: dict[str, Any]) -> tuple[float, ...]:
        return (known["rate"],)

    def _step(self, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        total = known["sum"]
        if known["fresh"]:
            total += self.initial_accumulator_value
        total += gradient * gradient
        known["sum"] = total
        return gradient / (xp.sqrt(total) + self.eps) * factor(known["rate"], gradient, xp)


def factor(number: Any, like: Array, xp: Namespace) -> Any:
    """A number to multiply an array by; one on the device in the array's dtype."""
    return xp.astype(number, like.dtype) if hasattr(number, "dtype") else number


def on_host(number: Any, b: Backend, factor: float | None = None) -> Any:
    """The same as a number of Python; one that was on the device is read, once."""
    number = b.to_numpy(number).item() if hasattr(number, "dtype") else number
    return number if factor is None else number * factor


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}
