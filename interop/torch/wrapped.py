"""The module of PyTorch around a model; imported only where PyTorch is.

Each parameter of the module is a tensor in the memory of the model's array, so an optimizer of PyTorch trains the
model. Its name is that in the model, by modules within that only hold it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...backends import Backend
from ...layers import enable_grad, no_grad
from ...layers.core.errors import full_name
from ...layers.core.layer import Layer


def tensor_of(array: Any) -> Any:
    """A tensor in the memory of an array; of one that can't be written to, a copy."""
    if isinstance(array, torch.Tensor):
        return array.detach()
    if isinstance(array, np.ndarray | np.generic):
        host = np.asarray(array)
        return torch.from_numpy(host if host.flags.writeable else host.copy())
    return torch.from_dlpack(array)


def array_of(tensor: Any, b: Backend) -> Any:
    """An array of a backend in the memory of a tensor."""
    plain = tensor.detach()
    return plain if b.owns(plain) else b.from_dlpack(plain)


class ModelModule(torch.nn.Module):
    """A model as a module: see `xpnn.as_torch_module`."""

    def __init__(self, model: Layer) -> None:
        super().__init__()
        # Not a module, which PyTorch would look into.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "_calls", 0)
        tensors: dict[int, Any] = {}
        for path, layer in model.named_places():
            for name, parameter in layer.parameters.items():
                if id(parameter) not in tensors:
                    tensors[id(parameter)] = torch.nn.Parameter(tensor_of(parameter.value), parameter.requires_grad)
                owner, key = self._owner(full_name(path, name))
                owner.register_parameter(key, tensors[id(parameter)])
            for name, array in layer.buffers.items():
                owner, key = self._owner(full_name(path, name))
                owner.register_buffer(key, tensor_of(array))
        torch.nn.Module.train(self, model.training)

    def _owner(self, name: str) -> tuple[torch.nn.Module, str]:
        """The module within that holds a tensor of that full name, and the last part of the name."""
        module: torch.nn.Module = self
        *path, key = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        return module, key

    def _places(self) -> Iterator[tuple[Any, Any, str, Any]]:
        """Each parameter of the model once, with its tensor."""
        seen = set()
        for path, layer in self.model.named_places():
            for name, parameter in layer.parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    owner, key = self._owner(full_name(path, name))
                    yield parameter, owner, key, owner._parameters[key]

    def train(self, mode: bool = True) -> ModelModule:
        """Set the mode of the model too."""
        self.model.train(mode)
        super().train(mode)
        return self

    def forward(self, *inputs: Any) -> Any:
        """What the model computes for tensors, one or several."""
        b = self.model.backend
        for number, x in enumerate(inputs, start=1):
            if not isinstance(x, torch.Tensor):
                raise TypeError(f"as_torch_module: input {number} must be a tensor, got {type(x).__name__}")
        found = list(self._places())
        for parameter, _, _, tensor in found:
            if tensor_of(parameter.value).data_ptr() != tensor.data_ptr():
                # The model's own optimizer, or `load`, made another array.
                tensor.data = tensor_of(parameter.value)
            if parameter.requires_grad != tensor.requires_grad:
                parameter.requires_grad = tensor.requires_grad
        tensors = [tensor for _, _, _, tensor in found]
        y = _Call.apply(self, len(inputs), b, *inputs, *tensors)
        self._show_buffers()
        return y

    def _show_buffers(self) -> None:
        """Let buffers of the module be the arrays that the model has now."""
        for path, layer in self.model.named_places():
            for name, array in layer.buffers.items():
                owner, key = self._owner(full_name(path, name))
                owner._buffers[key] = tensor_of(array)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load the model's state, by the names that both have."""
        keys = super().load_state_dict(state_dict, strict)
        state = {name: value for name, value in self.state_dict().items() if name in state_dict}
        self.model.load_state_dict({name: value.cpu().numpy().copy() for name, value in state.items()}, strict=False)
        for parameter, _, _, tensor in self._places():
            tensor.data = tensor_of(parameter.value)
        self._show_buffers()
        return keys

    def _apply(self, fn: Any, recurse: bool = True) -> ModelModule:
        """Refuse what would give the module other tensors than the model."""
        for tensor in (*self.parameters(), *self.buffers()):
            found = fn(tensor)
            if tensor.is_floating_point() and (found.dtype != tensor.dtype or found.device != tensor.device):
                raise RuntimeError(
                    f"as_torch_module: the model computes with {tensor.dtype} on {tensor.device} and shares its memory "
                    f"with the module, which can't go to {found.dtype} on {found.device}; move the model before: "
                    "nn.as_torch_module(model.to(backend, dtype))"
                )
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return ModelModule, (self.model,)

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelModule:
        return ModelModule(copy.deepcopy(self.model, memo))

    def extra_repr(self) -> str:
        """The model."""
        return repr(self.model)


def _saved(model: Layer) -> list[tuple[Layer, Any, Any]]:
    """What the last forward saved in each layer."""
    return [(layer, layer.saved, layer._output) for _, layer in model.named_layers()]


def _restore(saved: list[tuple[Layer, Any, Any]]) -> None:
    for layer, values, output in saved:
        layer.saved, layer._output = values, output


class _Call(torch.autograd.Function):
    """One forward of the model, and its backward."""

    @staticmethod
    def forward(ctx: Any, module: Any, count: int, b: Backend, *tensors: Any) -> Any:
        model, inputs = module.model, tensors[:count]
        arrays = tuple([array_of(x, b) for x in inputs])
        records = any(ctx.needs_input_grad)
        object.__setattr__(module, "_calls", module._calls + 1)
        ctx.module, ctx.count, ctx.backend, ctx.number = module, count, b, module._calls
        with enable_grad() if records else no_grad():
            y = model(arrays if count > 1 else arrays[0])
        ctx.saved_by_layers = _saved(model) if records else []
        return tensor_of(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        module, count = ctx.module, ctx.count
        latest = None
        if ctx.number != module._calls:
            if any(layer._calls is not None for _, layer in module.model.named_layers()):
                raise RuntimeError(
                    "as_torch_module: the model was called again before this backward, and a layer that it has in "
                    "several places has what the last call saved; call backward after each forward"
                )
            latest = _saved(module.model)
            _restore(ctx.saved_by_layers)
        parameters = [parameter for parameter, *_ in module._places()]
        before = [parameter.grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.grad = None
            needs = any(ctx.needs_input_grad[3 : 3 + count])
            dx = module.model.backward(array_of(dy, ctx.backend), input_grad=needs)
            found = [None if parameter.grad is None else tensor_of(parameter.grad) for parameter in parameters]
        finally:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
            if latest is not None:
                _restore(latest)
        gradients = dx if count > 1 and needs else (dx,) * count
        inputs = [tensor_of(each) if needs else None for each in gradients]
        return None, None, None, *inputs, *found
