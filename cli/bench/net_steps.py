"""The training step of a net on each side: the nets, the batch, and the step of ours and of PyTorch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Backend, Generator
from ...layers.core.release_after_backward import released
from ...layers.losses import CrossEntropy
from ...layers.models import BUILDERS
from ...training.optimizers import SGD, Adam
from .host_arrays import HostArray
from .pytorch import PyTorch
from .torch_module import torch_module

CLASSES = 10
# Learning rate, so small that long runs on one batch do not lead to extreme gradients.
RATE = 1e-3


@dataclass(frozen=True)
class NetCase:
    """A net of `BUILDERS`, the shape of an image, and the usual batch."""

    name: str
    builder: str
    image: tuple[int, int, int]
    batch: int


NETS: dict[str, NetCase] = {
    case.name: case
    for case in (
        NetCase("resnet18", "resnet18", (3, 32, 32), 32),
        NetCase("vgg11_bn", "vgg11_bn", (3, 32, 32), 32),
        NetCase("lenet5", "lenet5", (1, 28, 28), 64),
        NetCase("mlp", "mlp", (1, 28, 28), 64),
        NetCase("digits_lenet", "lenet", (1, 8, 8), 32),
    )
}
SHORT = ("lenet5", "mlp", "digits_lenet")


def batch_of(image: tuple[int, int, int], batch: int) -> tuple[HostArray, HostArray]:
    """Random images and classes, on the host."""
    generator = Generator(0).fold_in("bench")
    return np.asarray(generator.uniform((batch, *image), backend="numpy")), np.asarray(
        generator.permutation(batch) % CLASSES
    )


class OurNet:
    """A net of ours with its optimizer and a batch."""

    def __init__(self, b: Backend, case: NetCase, batch: int, optimizer: str) -> None:
        self.b, self.model = b, BUILDERS[case.builder](case.image, CLASSES, backend=b, seed=0)
        self.optimizer = Adam(self.model, RATE) if optimizer == "adam" else SGD(self.model, RATE, momentum=0.9)
        self.loss = CrossEntropy(backend=b)
        self.host_x, self.host_y = batch_of(case.image, batch)
        self.x, self.y = b.asarray(self.host_x, b.dtype_name), b.asarray(self.host_y)

    def gradients(self) -> dict[str, Any]:
        """The gradients of all parameters by name, at the current weights."""
        self.optimizer.zero_grad()
        self.loss(self.model(self.x), self.y)
        with released():
            self.model.backward(self.loss.backward(), input_grad=False)
        return {name: parameter.grad for name, parameter in self.model.named_parameters()}

    def step(self) -> None:
        """Forward, loss, backward, update."""
        self.gradients()
        self.optimizer.step()


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
