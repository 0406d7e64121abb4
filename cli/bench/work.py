"""One layer, loss or update on each side, as calls to time and results to compare."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...backends import Backend
from ...layers.convolution.conv import Conv2d
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter
from ...layers.losses import CrossEntropy
from ...training.optimizers import Optimizer
from .mirror import load, mirror, weights
from .opponent import Opponent
from .plain import HostArray, PlainConv

Calls: TypeAlias = dict[str, Callable[[], Any]]


class Work(Protocol):
    """What can be timed, phase by phase."""

    calls: Calls

    def results(self, phase: str) -> list[HostArray]:
        """What a call of that phase computes, in one order on both sides."""


class OurLayer:
    """A layer of ours: an input and an upstream gradient in the memory order in which a net hands them on."""

    def __init__(self, b: Backend, layer: Layer, x: HostArray, first: bool) -> None:
        self.b, self.layer, self.first = b, layer, first
        self.x = b.asarray(x) if first else as_handed_on(b, x)
        self.y = layer.forward(self.x)
        self.dy_host = upstream(b.to_numpy(self.y))
        self.dy = as_handed_on(b, self.dy_host)
        self.calls: Calls = {
            "forward": self.forward,
            "backward": self.backward,
            "step": self.step,
        }

    def forward(self) -> Any:
        """The output, with all kept that backward needs."""
        return self.layer.forward(self.x)

    def backward(self) -> Any:
        """The gradients of the parameters, and of the input unless this is a net's first layer."""
        for parameter in self.layer.parameters.values():
            parameter.grad = None
        return self.layer.backward(self.dy, input_grad=not self.first)

    def step(self) -> Any:
        """Forward and backward."""
        self.forward()
        return self.backward()

    def results(self, phase: str) -> list[HostArray]:
        """The output, or the gradients: the input's first."""
        y = self.forward()
        if phase == "forward":
            return [self.b.to_numpy(y)]
        dx = self.backward()
        found = [] if self.first else [dx]
        found += [parameter.grad for parameter in self.layer.parameters.values()]
        return [self.b.to_numpy(array) for array in found]


class TorchLayer:
    """The same layer, input and upstream gradient in PyTorch; backward on a graph that is kept."""

    def __init__(self, opponent: Opponent, ours: OurLayer, x: HostArray, memory_format: str) -> None:
        self.opponent, self.torch = opponent, opponent.torch
        module = mirror(opponent, ours.layer)
        if hasattr(module, "inplace"):
            module.inplace = False
        load_module(opponent, module, ours)
        self.module = opponent.module(module, memory_format)
        self.x = opponent.tensor(x, memory_format).requires_grad_(not ours.first)
        self.y = self.module(self.x)
        self.dy = opponent.tensor(ours.dy_host, memory_format)
        self.wanted = [] if ours.first else [self.x]
        self.wanted += list(self.module.parameters())
        self.calls: Calls = {
            "forward": self.forward,
            "backward": self.backward,
            "step": self.step,
        }

    def forward(self) -> Any:
        """The output, with its graph."""
        return self.module(self.x)

    def backward(self) -> Any:
        """The gradients, of one graph again and again."""
        return self.torch.autograd.grad(self.y, self.wanted, self.dy, retain_graph=True)

    def step(self) -> Any:
        """Forward and backward."""
        return self.torch.autograd.grad(self.module(self.x), self.wanted, self.dy)

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLayer.results`."""
        if phase == "forward":
            return [self.opponent.host(self.forward())]
        return [self.opponent.host(gradient) for gradient in self.backward()]


class PlainLayer:
    """The same convolution by the textbook, with arrays as it likes them."""

    def __init__(self, ours: OurLayer, x: HostArray) -> None:
        layer: Any = ours.layer
        state = weights(layer, ours.b)
        conv = PlainConv(state["weight"], state["bias"], layer.stride, layer.padding, layer.groups)
        conv.forward(x)
        self.calls: Calls = {
            "forward": lambda: conv.forward(x),
            "backward": lambda: conv.backward(ours.dy_host, not ours.first),
        }

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLayer.results`."""
        found = self.calls[phase]()
        return [found] if phase == "forward" else [array for array in found if array is not None]

    @staticmethod
    def knows(layer: Layer) -> bool:
        """Whether the textbook has it."""
        return isinstance(layer, Conv2d)


class OurLoss:
    """Softmax cross-entropy of logits ``(N, classes)``."""

    def __init__(self, b: Backend, logits: HostArray, targets: HostArray) -> None:
        self.b, loss = b, CrossEntropy(backend=b)
        self.x, y = b.asarray(logits), b.asarray(targets)
        loss(self.x, y)
        self.calls: Calls = {"forward": lambda: loss(self.x, y), "backward": loss.backward}

    def results(self, phase: str) -> list[HostArray]:
        """The loss, or its gradient."""
        return [self.b.to_numpy(self.calls[phase]())]


class TorchLoss:
    """The same in PyTorch."""

    def __init__(self, opponent: Opponent, logits: HostArray, targets: HostArray) -> None:
        self.opponent, torch = opponent, opponent.torch
        x, y = opponent.tensor(logits).requires_grad_(), opponent.tensor(targets)
        loss = torch.nn.CrossEntropyLoss()
        value = loss(x, y)
        self.calls: Calls = {
            "forward": lambda: loss(x, y),
            "backward": lambda: torch.autograd.grad(value, x, retain_graph=True)[0],
        }

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLoss.results`."""
        return [self.opponent.host(self.calls[phase]())]


class OurUpdate:
    """An optimizer's step over parameters with gradients."""

    def __init__(self, b: Backend, make: Callable[[Any], Optimizer], values: list[HostArray]) -> None:
        self.b, self.parameters = b, [Parameter(b.asarray(value.copy())) for value in values]
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.grad = b.asarray(upstream(value))
        self.calls: Calls = {"step": make(self.parameters).step}

    def results(self, phase: str) -> list[HostArray]:
        """What one more step adds to the values."""
        before = [np.array(self.b.to_numpy(parameter.value)) for parameter in self.parameters]
        self.calls[phase]()
        pairs = zip(self.parameters, before, strict=True)
        return [self.b.to_numpy(parameter.value) - old for parameter, old in pairs]


class TorchUpdate:
    """The same in PyTorch."""

    def __init__(self, opponent: Opponent, make: Callable[[Any, Any], Any], values: list[HostArray]) -> None:
        self.opponent = opponent
        self.parameters = [opponent.torch.nn.Parameter(opponent.tensor(value)) for value in values]
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.grad = opponent.tensor(upstream(value))
        self.calls: Calls = {"step": make(opponent.torch.optim, self.parameters).step}

    def results(self, phase: str) -> list[HostArray]:
        """As `OurUpdate.results`."""
        before = [np.array(self.opponent.host(parameter)) for parameter in self.parameters]
        self.calls[phase]()
        pairs = zip(self.parameters, before, strict=True)
        return [self.opponent.host(parameter) - old for parameter, old in pairs]


def as_handed_on(b: Backend, array: HostArray) -> Any:
    """The array with its channels last in memory, as the layer before leaves them."""
    if array.ndim != 4:
        return b.asarray(array)
    return b.xp.permute_dims(b.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1))), (0, 3, 1, 2))


def upstream(like: HostArray) -> HostArray:
    """A gradient of that shape: normal numbers, always the same."""
    return np.asarray(np.random.default_rng(1).standard_normal(like.shape, dtype=np.float32))


def load_module(opponent: Opponent, module: Any, ours: OurLayer) -> None:
    """Give a module our layer's weights, where it has any."""
    if ours.layer.parameters:
        load(opponent, module, ours.layer, ours.b)


def relative_error(ours: list[HostArray], theirs: list[HostArray]) -> float:
    """Norm of the difference over the norm, the largest of all arrays."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        wide = b.astype(np.float64)
        error = float(np.linalg.norm((a - wide).ravel())) / max(float(np.linalg.norm(wide.ravel())), 1e-30)
        worst = max(worst, error) if error < float("inf") else float("inf")
    return worst
