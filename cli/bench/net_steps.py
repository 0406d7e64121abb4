"""The training step of a net on each side: the nets, the batch, and the step of ours and of PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...backends import Backend, Generator
from ...layers import models
from ...layers.core.layer import Layer
from ...layers.core.release_after_backward import released
from ...layers.losses import CrossEntropy
from ...training.optimizers import SGD, Adam
from .host_arrays import HostArray
from .pytorch import PyTorch
from .torch_module import torch_module

CLASSES = 10
# Learning rate, so small that long runs on one batch do not lead to extreme gradients.
RATE = 1e-3


@dataclass(frozen=True)
class NetCase:
    """A function of `xpnn.models` that builds a net, the shape of an image, and the usual batch."""

    name: str
    builder: str
    image: tuple[int, int, int]
    batch: int

    def build(self, b: Backend) -> Layer:
        """The net."""
        model: Layer = getattr(models, self.builder)(self.image, CLASSES, backend=b, seed=0)
        return model


NETS: dict[str, NetCase] = {
    case.name: case
    for case in (
        NetCase("resnet18", "resnet18", (3, 32, 32), 32),
        NetCase("vgg11_bn", "vgg11_bn", (3, 32, 32), 32),
        NetCase("mobilenet_v2", "mobilenet_v2", (3, 32, 32), 32),
        NetCase("unet", "unet", (3, 32, 32), 16),
        NetCase("lenet5", "lenet5", (1, 28, 28), 64),
        NetCase("mlp", "mlp", (1, 28, 28), 64),
        NetCase("digits_lenet", "lenet", (1, 8, 8), 32),
    )
}
SHORT = ("lenet5", "mlp", "digits_lenet")


def batch_of(image: tuple[int, int, int], batch: int, model: Layer) -> tuple[HostArray, HostArray]:
    """Random images, and a class for each image, or for each pixel if that is the model's output; on the host."""
    generator = Generator(0).fold_in("bench")
    images = generator.uniform((batch, *image), backend="numpy")
    pixels = model.output_shape((batch, *image))[2:]
    classes = generator.permutation(batch * prod(pixels)) % CLASSES
    return np.asarray(images), np.asarray(classes).reshape(batch, *pixels)


class OurNet:
    """A net of ours with its optimizer and a batch."""

    def __init__(self, b: Backend, case: NetCase, batch: int, optimizer: str) -> None:
        self.b, self.model = b, case.build(b)
        self.optimizer = Adam(self.model, RATE) if optimizer == "adam" else SGD(self.model, RATE, momentum=0.9)
        self.loss = CrossEntropy(backend=b)
        self.host_x, self.host_y = batch_of(case.image, batch, self.model)
        self.x, self.y = b.asarray(self.host_x, b.dtype_name), b.asarray(self.host_y)

    def gradients(self) -> dict[str, Any]:
        """The gradients of all parameters by name, at the current weights."""
        self._backward(self.x, self.y)
        return {name: parameter.grad for name, parameter in self.model.named_parameters()}

    def step(self) -> None:
        """Forward, loss, backward, update."""
        self._step(self.x, self.y)

    def compiled(self) -> CompiledStep | None:
        """`step`, compiled; None if the backend compiles no steps."""
        step = self.b.compile(self._step, self.model, self.optimizer)
        return None if step == self._step else CompiledStep(step, self)

    def _step(self, x: Any, y: Any) -> Any:
        value = self._backward(x, y)
        self.optimizer.step()
        return value

    def _backward(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        value = self.loss(self.model(x), y)
        with released():
            self.model.backward(self.loss.backward(), input_grad=False)
        return value


class CompiledStep:
    """A compiled step of a net on its batch."""

    def __init__(self, step: Any, net: OurNet) -> None:
        self._step, self._net = step, net

    def __call__(self) -> object:
        """Take it; returns the loss."""
        return self._step(self._net.x, self._net.y)

    @property
    def launches(self) -> int | None:
        """Kernels, copies and fills of a recorded step; None if none has been recorded."""
        launches: int | None = self._step.launches
        return launches


class TorchNet:
    """The same net, batch and optimizer in PyTorch, eager, in one memory format; `load_weights` copies the weights."""

    def __init__(
        self, pytorch: PyTorch, model: Any, x: HostArray, y: HostArray, optimizer: str, memory_format: str
    ) -> None:
        torch = self.torch = pytorch.torch
        self.pytorch = pytorch
        self.net = pytorch.module(torch_module(pytorch, model), memory_format)
        self.x, self.y = pytorch.tensor(x, memory_format), pytorch.tensor(y)
        self.loss = torch.nn.CrossEntropyLoss()
        parameters = self.net.parameters()
        self.optimizer: Any = (
            torch.optim.Adam(parameters, lr=RATE)
            if optimizer == "adam"
            else torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
        )

    def gradients(self) -> dict[str, Any]:
        """The gradients of all parameters by name, at the current weights."""
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        return {name: parameter.grad for name, parameter in self.net.named_parameters()}

    def step(self) -> None:
        """Forward, loss, backward, update."""
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        self.optimizer.step()

    def infer(self, x: Any) -> Any:
        """The output without autograd."""
        with self.torch.inference_mode():
            return self.net(x)
