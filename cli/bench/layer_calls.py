"""One layer, loss or update of ours and of PyTorch, as calls to time and results to compare."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...backends import Backend
from ...layers.convolution.conv import Conv2d
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter
from ...layers.losses import CrossEntropy
from ...training.optimizers.base import Optimizer
from .host_arrays import HostArray, upstream_gradient, with_channels_last
from .pytorch import PyTorch
from .textbook_convolution import TextbookConv2d
from .torch_module import host_state, load_weights, torch_module

ByPhase: TypeAlias = dict[str, Callable[[], Any]]


class Calls(Protocol):
    """The calls of one side: of each phase one that is timed, and its results."""

    calls: ByPhase

    def results(self, phase: str) -> list[HostArray]:
        """The arrays that a call of that phase computes, in the same order on both sides."""


class OurLayer:
    """A layer of ours, with an input and a gradient in the memory layout that they have in a net."""

    def __init__(self, b: Backend, layer: Layer, x: HostArray, first: bool) -> None:
        self.b, self.layer, self.first = b, layer, first
        self.x = b.asarray(x) if first else with_channels_last(b, x)
        self.y = layer.forward(self.x)
        self.dy_host = upstream_gradient(b.to_numpy(self.y))
        self.dy = with_channels_last(b, self.dy_host)
        self.calls: ByPhase = {
            "forward": self.forward,
            "backward": self.backward,
            "step": self.step,
        }

    def forward(self) -> Any:
        """The output; what backward needs is saved."""
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
    """The same layer, input and gradient in PyTorch; backward uses one autograd graph again and again."""

    def __init__(self, pytorch: PyTorch, ours: OurLayer, x: HostArray, memory_format: str) -> None:
        self.pytorch, self.torch = pytorch, pytorch.torch
        module = torch_module(pytorch, ours.layer)
        if hasattr(module, "inplace"):
            module.inplace = False
        load_module(pytorch, module, ours)
        self.module = pytorch.module(module, memory_format)
        self.x = pytorch.tensor(x, memory_format).requires_grad_(not ours.first)
        self.y = self.module(self.x)
        self.dy = pytorch.tensor(ours.dy_host, memory_format)
        self.wanted = [] if ours.first else [self.x]
        self.wanted += list(self.module.parameters())
        self.calls: ByPhase = {
            "forward": self.forward,
            "backward": self.backward,
            "step": self.step,
        }

    def forward(self) -> Any:
        """The output, with its autograd graph."""
        return self.module(self.x)

    def backward(self) -> Any:
        """The gradients of the parameters, and of the input unless this is a net's first layer."""
        return self.torch.autograd.grad(self.y, self.wanted, self.dy, retain_graph=True)

    def step(self) -> Any:
        """Forward and backward."""
        return self.torch.autograd.grad(self.module(self.x), self.wanted, self.dy)

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLayer.results`."""
        if phase == "forward":
            return [self.pytorch.host(self.forward())]
        return [self.pytorch.host(gradient) for gradient in self.backward()]


class TextbookLayer:
    """The same convolution by `TextbookConv2d`, on arrays in its memory layout."""

    def __init__(self, ours: OurLayer, x: HostArray) -> None:
        layer: Any = ours.layer
        state = host_state(layer, ours.b)
        conv = TextbookConv2d(state["weight"], state["bias"], layer.stride, layer.padding, layer.groups)
        conv.forward(x)
        self.calls: ByPhase = {
            "forward": lambda: conv.forward(x),
            "backward": lambda: conv.backward(ours.dy_host, not ours.first),
        }

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLayer.results`."""
        found = self.calls[phase]()
        return [found] if phase == "forward" else [array for array in found if array is not None]

    @staticmethod
    def has(layer: Layer) -> bool:
        """Whether there is a textbook version of the layer."""
        return isinstance(layer, Conv2d)


class OurLoss:
    """Our softmax cross-entropy of logits ``(N, classes)``."""

    def __init__(self, b: Backend, logits: HostArray, targets: HostArray) -> None:
        self.b, loss = b, CrossEntropy(backend=b)
        self.x, y = b.asarray(logits), b.asarray(targets)
        loss(self.x, y)
        self.calls: ByPhase = {"forward": lambda: loss(self.x, y), "backward": loss.backward}

    def results(self, phase: str) -> list[HostArray]:
        """The loss, or its gradient."""
        return [self.b.to_numpy(self.calls[phase]())]


class TorchLoss:
    """The same in PyTorch."""

    def __init__(self, pytorch: PyTorch, logits: HostArray, targets: HostArray) -> None:
        self.pytorch, torch = pytorch, pytorch.torch
        x, y = pytorch.tensor(logits).requires_grad_(), pytorch.tensor(targets)
        loss = torch.nn.CrossEntropyLoss()
        value = loss(x, y)
        self.calls: ByPhase = {
            "forward": lambda: loss(x, y),
            "backward": lambda: torch.autograd.grad(value, x, retain_graph=True)[0],
        }

    def results(self, phase: str) -> list[HostArray]:
        """As `OurLoss.results`."""
        return [self.pytorch.host(self.calls[phase]())]


class OurUpdate:
    """A step of an optimizer of ours, for parameters with gradients."""

    def __init__(self, b: Backend, make: Callable[[Any], Optimizer], values: list[HostArray]) -> None:
        self.b, self.parameters = b, [Parameter(b.asarray(value.copy())) for value in values]
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.grad = b.asarray(upstream_gradient(value))
        self.calls: ByPhase = {"step": make(self.parameters).step}

    def results(self, phase: str) -> list[HostArray]:
        """What one step adds to the values."""
        before = [np.array(self.b.to_numpy(parameter.value)) for parameter in self.parameters]
        self.calls[phase]()
        pairs = zip(self.parameters, before, strict=True)
        return [self.b.to_numpy(parameter.value) - old for parameter, old in pairs]


class TorchUpdate:
    """The same in PyTorch."""

    def __init__(self, pytorch: PyTorch, make: Callable[[Any, Any], Any], values: list[HostArray]) -> None:
        self.pytorch = pytorch
        self.parameters = [pytorch.torch.nn.Parameter(pytorch.tensor(value)) for value in values]
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.grad = pytorch.tensor(upstream_gradient(value))
        self.calls: ByPhase = {"step": make(pytorch.torch.optim, self.parameters).step}

    def results(self, phase: str) -> list[HostArray]:
        """As `OurUpdate.results`."""
        before = [np.array(self.pytorch.host(parameter)) for parameter in self.parameters]
        self.calls[phase]()
        pairs = zip(self.parameters, before, strict=True)
        return [self.pytorch.host(parameter) - old for parameter, old in pairs]


def load_module(pytorch: PyTorch, module: Any, ours: OurLayer) -> None:
    """Give a module the weights of our layer, if it has any."""
    if ours.layer.parameters:
        load_weights(pytorch, module, ours.layer, ours.b)
