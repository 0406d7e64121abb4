"""Cases of whole nets, one step each, and of training runs with each optimizer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar

from ...backends import BackendLike
from ...common.types import Array
from ...layers import CrossEntropy, Dense, Layer, Sequential, Tanh, models
from ...training import optimizers
from ...training.optimizers import Optimizer
from ..tolerances import PARTS
from . import inputs
from .case import HOST, Case, LayerCase, buffers_of, host_state


@dataclass(frozen=True)
class NetCase(LayerCase):
    """Logits, cross-entropy, input gradient and every parameter's gradient of a whole net."""

    single: ClassVar[bool] = False
    classes: int = 5

    def run(self, backend: BackendLike, dtype: str | None = None) -> dict[str, Array]:
        """One step without an update."""
        net, x, _ = self.prepare(backend, dtype)
        b, loss = net.backend, CrossEntropy(backend=net.backend)
        y = net(x)
        target = inputs.classes(self.generator.fold_in("target"), tuple(y.shape))
        found = {"y": y, "loss": loss(y, b.asarray(target)), "dx": net.backward(loss.backward())}
        found |= {f"d{name}": parameter.grad for name, parameter in net.named_parameters()}
        return found | buffers_of(net)


@dataclass(frozen=True)
class TrainingCase(Case):
    """A training run of a small smooth net: the loss of each step, and the weights at the end.

    The net has no kinks. At a kink a run in float32 can diverge from one in float64, and no bound could distinguish
    this from a mistake.

    Attributes
    ----------
    optimizer : callable
        Makes it from the net.
    steps : int
        Batches.
    every : int
        Number of batches whose gradients are added before a step of the optimizer.
    """

    single: ClassVar[bool] = False
    optimizer: Callable[..., Optimizer] = optimizers.SGD
    steps: int = 100
    every: int = 1

    def run(self, backend: BackendLike, dtype: str | None = None) -> dict[str, Array]:
        """All steps, on four batches in turn."""
        b = self.place(backend, dtype)
        net = _small_net(backend=b)
        net.load_state_dict(host_state(_small_net(backend=HOST), self.generator))
        optimizer, loss = self.optimizer(net), CrossEntropy(backend=b)
        x = inputs.real(self.generator.fold_in("input"), (32, 6))
        target = inputs.classes(self.generator.fold_in("target"), (32, 3))
        batches = [(b.asarray(x[i::4], b.dtype), b.asarray(target[i::4])) for i in range(4)]
        losses = []
        for step in range(self.steps):
            if step % self.every == 0:
                optimizer.zero_grad()
            data, wanted = batches[step % 4]
            losses.append(loss(net(data), wanted))
            net.backward(loss.backward(), input_grad=False)
            if (step + 1) % self.every == 0:
                optimizer.step()
        return {"loss": b.xp.stack(losses), **net.state_dict()}


def nets() -> Iterator[LayerCase]:
    """Models of the library.

    If rounding moves a value across the kink of a ReLU, or changes the maximum of a max-pool, gradients jump. So the
    nets are small, and their seeds are chosen so that no value is nearer to a kink than 1e-5 of its layer's root mean
    square, about ten times their float32 error. `models.mobilenet_v2` is left out: it is too deep for any seed to
    fulfil this.
    """
    for name, image, batch, seed in (
        ("lenet5", (1, 28, 28), 4, 7),
        ("mlp", (1, 8, 8), 8, 2),
        ("vgg11_bn", (3, 32, 32), 2, 38),
        ("resnet18", (3, 16, 16), 2, 99),
        ("unet", (2, 8, 8), 4, 2),
    ):
        build = partial(getattr(models, name), image, 5)
        # The longest sum is the weight gradient of the first convolution, over batch and pixels.
        longest, depth = batch * prod(image[1:]), sum(1 for _ in build().named_parameters())
        terms = dict.fromkeys(PARTS, longest * depth)
        yield NetCase(f"{name}/one step", "net", terms, "float32", build, (batch, *image), seed=seed)
    # It has no kinks.
    build, shape = partial(models.vit, (2, 8, 8), 5), (4, 2, 8, 8)
    terms = dict.fromkeys(PARTS, prod(shape) // 2 * sum(1 for _ in build().named_parameters()))
    yield LayerCase("vit/one step", "net", terms, "float32", build, shape)


def trainings() -> Iterator[TrainingCase]:
    """A hundred steps of each optimizer."""
    for name, variant, options in (
        ("SGD", "100 steps", {"lr": 0.1}),
        ("SGD", "100 steps, dampening", {"lr": 0.1, "momentum": 0.8, "dampening": 0.4}),
        ("SGD", "100 steps, momentum", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
        ("SGD", "100 steps, Nesterov", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        ("Adam", "100 steps", {"lr": 0.01}),
        ("AdamW", "100 steps", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-3}),
        ("RMSprop", "100 steps", {"lr": 0.003}),
        ("RMSprop", "100 steps, centered, momentum", {"lr": 0.003, "momentum": 0.5, "centered": True, "eps": 1e-3}),
        ("Adagrad", "100 steps", {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-3}),
        ("Adam", "100 steps, amsgrad", {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.9), "eps": 1e-3}),
        ("Adadelta", "100 steps", {"eps": 1e-3, "weight_decay": 0.01}),
        ("Adamax", "100 steps", {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-3}),
        ("NAdam", "100 steps", {"lr": 0.01, "momentum_decay": 0.05, "eps": 1e-3}),
        ("RAdam", "100 steps", {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-3, "decoupled_weight_decay": True}),
        ("Lion", "100 steps", {"lr": 0.001, "weight_decay": 0.1}),
    ):
        terms = dict.fromkeys(PARTS, 100 * 8)
        rule = partial(getattr(optimizers, name), **options)
        yield TrainingCase(f"{name}/{variant}", "training", terms, optimizer=rule)
    yield TrainingCase("SGD/100 steps, two groups", "training", terms, optimizer=_with_groups)
    added = partial(optimizers.SGD, lr=0.1)
    yield TrainingCase("SGD/50 steps, gradients of two batches", "training", terms, optimizer=added, every=2)


def _with_groups(net: Layer) -> Optimizer:
    """SGD with another rate and momentum for biases, which do not decay."""
    weights, biases = optimizers.decay_groups(net, weight_decay=0.01)
    return optimizers.SGD([weights, {**biases, "lr": 0.3, "momentum": 0.5}], lr=0.1)


def _small_net(**placement: Any) -> Layer:
    return Sequential(Dense(6, 16), Tanh(), Dense(16, 3), **placement)
