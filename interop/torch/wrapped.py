"""The module of PyTorch around a model; imported only where PyTorch is.

Each parameter of the module is a tensor in the memory of the model's array, so an optimizer of PyTorch trains the
model. Its name is that in the model, by modules within that only hold it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from ...backends import Backend
from ...layers import enable_grad, no_grad
from ...layers.core.errors import full_name
from ...layers.core.layer import Layer
from .memory import array_of, holds, kind, memory, own_value, tensor_of, words


class ModelModule(torch.nn.Module):
    """A model as a module: see `xpnn.as_torch_module`."""

    def __init__(self, model: Layer) -> None:
        super().__init__()
        # Not a module, which PyTorch would look into.
        object.__setattr__(self, "model", model)
        # Each tensor, and the memory that it and the model had when last seen, by the full name.
        object.__setattr__(self, "_known", {})
        object.__setattr__(self, "_memories", {})
        tensors: dict[int, Any] = {}
        for path, layer in model.named_places():
            for name, parameter in layer.parameters.items():
                if id(parameter) not in tensors:
                    tensors[id(parameter)] = torch.nn.Parameter(
                        tensor_of(own_value(parameter)), parameter.requires_grad
                    )
                    self._known[full_name(path, name)] = tensors[id(parameter)]
                    self._memories[full_name(path, name)] = memory(tensors[id(parameter)])
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

    def _places(self) -> Iterator[tuple[Any, str, Any]]:
        """Each parameter of the model once, with its full name and its tensor."""
        seen = set()
        for path, layer in self.model.named_places():
            for name, parameter in layer.parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    owner, key = self._owner(full_name(path, name))
                    yield parameter, full_name(path, name), owner._parameters[key]

    def _share(self) -> list[tuple[Any, Any]]:
        """Each parameter with its tensor, in one memory again if either side made another array."""
        found = []
        for parameter, name, tensor in self._places():
            known = self._known[name]
            if tensor is not known:
                raise RuntimeError(
                    f"as_torch_module: {name} was replaced by another tensor, which the model does not compute with; "
                    "copy its values into the parameter, as load_state_dict does"
                )
            before = memory(tensor), memory(tensor_of(own_value(parameter)))
            if before[0] != before[1]:
                self._share_again(parameter, name, tensor, *before)
            if parameter.requires_grad != tensor.requires_grad:
                parameter.requires_grad = tensor.requires_grad
            self._memories[name] = memory(tensor)
            found.append((parameter, tensor))
        return found

    def _share_again(self, parameter: Any, name: str, tensor: Any, theirs: Any, ours: Any) -> None:
        """Let both sides have the array of the one that made another."""
        shared = self._memories[name]
        if shared not in (theirs, ours):
            raise RuntimeError(
                f"as_torch_module: the model and PyTorch both set {name} to another array since the last call; set it "
                "on one side"
            )
        if ours == shared:
            own = parameter.value
            if (tensor.shape, tensor.dtype, tensor.device) != kind(tensor_of(own)):
                raise RuntimeError(
                    f"as_torch_module: {name} was set to a tensor of {words(*kind(tensor))}; the model has "
                    f"{words(*kind(tensor_of(own)))}"
                )
            parameter.value = array_of(tensor, self.model.backend)
        tensor.data = tensor_of(own_value(parameter))

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
        tensors = [tensor for _, tensor in self._share()]
        y = _Call.apply(self, len(inputs), torch.is_grad_enabled(), b, *inputs, *tensors)
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
        self._share()
        keys = super().load_state_dict(state_dict, strict)
        state = {name: value for name, value in self.state_dict().items() if name in state_dict}
        self.model.load_state_dict({name: value.cpu().numpy().copy() for name, value in state.items()}, strict=False)
        self._share()
        self._show_buffers()
        return keys

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # PyTorch calls this, not `load_state_dict`, for a module within another.
        self._share()
        self._show_buffers()
        super()._load_from_state_dict(*arguments)

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """The model's state, by its names."""
        self._share()
        self._show_buffers()
        return super().state_dict(*arguments, **keywords)

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
        self._share()
        return ModelModule, (self.model,)

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelModule:
        self._share()
        return ModelModule(copy.deepcopy(self.model, memo))

    def extra_repr(self) -> str:
        """The model."""
        return repr(self.model)


def _saved(model: Layer) -> list[tuple[Layer, Any, Any, Any]]:
    """What the last forward saved in each layer."""
    return [(layer, layer.saved, layer._output, layer._calls) for _, layer in model.named_layers()]


def _restore(saved: list[tuple[Layer, Any, Any, Any]]) -> None:
    for layer, values, output, _ in saved:
        layer.saved, layer._output = values, output


class _Call(torch.autograd.Function):
    """One forward of the model, and its backward."""

    @staticmethod
    def forward(ctx: Any, module: Any, count: int, records: bool, b: Backend, *tensors: Any) -> Any:
        model, inputs = module.model, tensors[:count]
        arrays = tuple([array_of(x, b) for x in inputs])
        records = records and any(ctx.needs_input_grad)
        ctx.module, ctx.count, ctx.backend = module, count, b
        with enable_grad() if records else no_grad():
            y = tensor_of(model(arrays if count > 1 else arrays[0]))
        if records:
            ctx.saved_by_layers = _saved(model)
            ctx.memories = [memory(tensor) for tensor in tensors[count:]]
            # The layers keep these arrays themselves; PyTorch refuses backward if one of them was changed in place.
            held = any(holds(saved, y) for _, saved, *_ in ctx.saved_by_layers)
            ctx.save_for_backward(*tensors, *([y] if held else []))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        module, count = ctx.module, ctx.count
        # Raises an error after a change in place.
        _ = ctx.saved_tensors
        places = list(module._places())
        parameters = [parameter for parameter, *_ in places]
        for (parameter, name, _), then in zip(places, ctx.memories, strict=True):
            if memory(tensor_of(parameter.value)) != then:
                raise RuntimeError(
                    f"as_torch_module: {name} was set to another array since the forward of this backward; call "
                    "backward before weights change"
                )
        latest = _saved(module.model)
        for (layer, *_, calls), (*_, now) in zip(ctx.saved_by_layers, latest, strict=True):
            if calls is not now:
                raise RuntimeError(
                    f"as_torch_module: the model was called again before this backward, and {layer!r}, which it has "
                    "in several places, has what the last call saved; call backward after each forward"
                )
        _restore(ctx.saved_by_layers)
        before = [parameter.grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.grad = None
            needs = any(ctx.needs_input_grad[4 : 4 + count])
            dx = module.model.backward(array_of(dy, ctx.backend), input_grad=needs)
            found = [None if parameter.grad is None else tensor_of(parameter.grad) for parameter in parameters]
        finally:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
            _restore(latest)
        gradients = dx if count > 1 and needs else (dx,) * count
        inputs = [tensor_of(each) if needs else None for each in gradients]
        return None, None, None, None, *inputs, *found
