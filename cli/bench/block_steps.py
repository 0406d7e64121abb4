"""A block of each side, `Conv2d` 3x3, `BatchNorm2d` and `ReLU` with a constant number of channels, and its step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...backends import Backend
from ...layers import BatchNorm2d, Conv2d, ReLU, Sequential
from .host_arrays import HostArray, upstream_gradient, with_channels_last
from .pytorch import PyTorch
from .torch_module import torch_module


class OurBlock:
    """The block on a backend, with an input and a gradient in the memory layout that they have in a net."""

    def __init__(self, b: Backend, channels: int, size: int, batch: int) -> None:
        self.b = b
        self.model = Sequential(
            Conv2d(channels, channels, 3, padding=1), BatchNorm2d(channels), ReLU(), backend=b, seed=0
        )
        shape = (batch, channels, size, size)
        self.host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self.x, self.dy = with_channels_last(b, self.host), with_channels_last(b, upstream_gradient(self.host))

    def step(self) -> Any:
        """Forward and backward; the input's gradient."""
        self.model.zero_grad()
        self.model.forward(self.x)
        return self.model.backward(self.dy)

    def results(self) -> list[HostArray]:
        """All gradients but that of the convolution's bias, which the batch norm after it makes zero."""
        found = [self.step(), *(p.grad for name, p in self.model.named_parameters() if name != "0.bias")]
        return [self.b.to_numpy(array) for array in found]


class TorchBlock:
    """The same block in PyTorch."""

    def __init__(self, pytorch: PyTorch, model: Any, x: HostArray, memory_format: str) -> None:
        self.pytorch = pytorch
        self.net = pytorch.module(torch_module(pytorch, model), memory_format)
        self.x = pytorch.tensor(x, memory_format).requires_grad_()
        self.dy = pytorch.tensor(upstream_gradient(x), memory_format)
        self.wanted = [self.x, *self.net.parameters()]

    def step(self) -> Any:
        """Forward and backward; all gradients."""
        return self.pytorch.torch.autograd.grad(self.net(self.x), self.wanted, self.dy)

    def results(self) -> list[HostArray]:
        """As `OurBlock.results`."""
        dx, weight, _, *others = self.step()
        return [self.pytorch.host(tensor) for tensor in (dx, weight, *others)]


def block_step(
    b: Backend, pytorch: PyTorch | None, channels: int, size: int, batch: int, side: str
) -> Callable[[], object]:
    """A step of one side, for the measurement of its peak memory."""
    ours = OurBlock(b, channels, size, batch)
    if pytorch is None:
        ours.model.state_dict()
        return ours.step
    return TorchBlock(pytorch, ours.model, ours.host, side).step
