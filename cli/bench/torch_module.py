"""A net of ours as a PyTorch module with the same layers and names in the same order."""

from typing import Any

import numpy as np

from ...backends import Backend
from ...layers.core.layer import Layer
from ...layers.windows.geometry import SAME
from .pytorch import PyTorch


def torch_module(pytorch: PyTorch, layer: Layer) -> Any:
    """The PyTorch module of a layer; `load_weights` copies the weights.

    Raises
    ------
    ValueError
        For a layer without a PyTorch module here.
    """
    nn = pytorch.torch.nn
    kind = type(layer).__name__
    given: Any = layer
    if kind == "Sequential":
        return nn.Sequential(*(torch_module(pytorch, child) for child in given))
    if kind == "Residual":
        return _residual(pytorch, given)
    if kind == "Conv2d":
        sizes = (given.in_channels, given.out_channels, given.kernel_size, given.stride, _padding(given))
        return nn.Conv2d(*sizes, given.dilation, given.groups, given.bias, given.padding_mode)
    if kind == "ConvTranspose2d":
        sizes = (given.in_channels, given.out_channels, given.kernel_size, given.stride, _padding(given))
        return nn.ConvTranspose2d(*sizes, given.output_padding, given.groups, given.bias, given.dilation)
    if kind == "Parallel":
        return _parallel(pytorch, given)
    if kind == "Identity":
        return nn.Identity()
    if kind == "Dense":
        return nn.Linear(given.in_features, given.out_features, given.bias)
    if kind == "BatchNorm2d":
        return nn.BatchNorm2d(given.num_features, given.eps, given.momentum)
    if kind == "ReLU":
        return nn.ReLU(inplace=True)
    if kind in ("MaxPool2d", "AvgPool2d"):
        return getattr(nn, kind)(given.kernel_size, given.stride, _padding(given))
    if kind == "GlobalAvgPool":
        return nn.AdaptiveAvgPool2d(1)
    if kind == "Flatten":
        return nn.Flatten()
    raise ValueError(f"there is no PyTorch module for {layer!r}")


def load_weights(pytorch: PyTorch, module: Any, layer: Layer, backend: Backend) -> None:
    """Copy the weights and running statistics of a layer into its PyTorch module."""
    state = {name: pytorch.torch.from_numpy(array) for name, array in host_state(layer, backend).items()}
    module.load_state_dict(state)


def host_state(layer: Layer, backend: Backend) -> dict[str, Any]:
    """Copies of all arrays of a layer, on the host."""
    return {name: np.array(backend.to_numpy(array)) for name, array in layer.state_dict().items()}


def _residual(pytorch: PyTorch, layer: Any) -> Any:
    """``activation(body(x) + shortcut(x))``, added in place as torchvision does."""
    children = {name: torch_module(pytorch, child) for name, child in layer.children.items()}

    def forward(self: Any, x: Any) -> Any:
        y = self.body(x)
        y += self.shortcut(x) if "shortcut" in children else x
        return self.activation(y) if "activation" in children else y

    residual = type("Residual", (pytorch.torch.nn.Module,), {"forward": forward})()
    for name, child in children.items():
        residual.add_module(name, child)
    return residual


def _parallel(pytorch: PyTorch, layer: Any) -> Any:
    """The outputs of all branches, joined."""
    children = {name: torch_module(pytorch, child) for name, child in layer.children.items()}

    def forward(self: Any, x: Any) -> Any:
        outputs = [child(x) for child in self.children()]
        return sum(outputs[1:], outputs[0]) if layer.join == "add" else pytorch.torch.cat(outputs, layer.axis)

    parallel = type("Parallel", (pytorch.torch.nn.Module,), {"forward": forward})()
    for name, child in children.items():
        parallel.add_module(name, child)
    return parallel


def _padding(layer: Any) -> Any:
    """The padding as an integer, which PyTorch's fast paths need."""
    if layer.padding == "valid":
        return 0
    if layer.padding not in SAME:
        return layer.padding
    if not isinstance(layer.kernel_size, int) or layer.kernel_size % 2 == 0 or layer.stride != 1:
        raise ValueError(f'padding "same" of {layer!r} is no integer')
    return layer.dilation * (layer.kernel_size // 2)
