"""A model of this library for a module of PyTorch: `from_torch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack
from warnings import warn

from ...backends import Backend
from ...layers.core.errors import full_name
from ...layers.core.layer import Layer
from ...layers.core.placement import Placement
from ..input_shapes import input_shapes
from ..packages import torch_for
from .conversion import Conversion, layer_for
from .trace import is_leaf, require_plain, steps_of

_FLOATS = ("float32", "float64")


def from_torch(module: Any, input_shape: Sequence[Any], **placement: Unpack[Placement]) -> Layer:
    """A model that computes what a module of PyTorch computes, with the same names and copies of its weights.

    The module is traced by `torch.fx`: its ``forward`` may call modules of ``torch.nn``, functions of
    ``torch.nn.functional``, and methods and operators of tensors that have a layer here. Conditions may not depend on
    tensors or their shapes. What is trained, frozen, and in training or evaluation in the module is so in the model.

    Parameters
    ----------
    module : torch.nn.Module
        With weights in float32 or float64, which is also the dtype of the model unless ``placement`` says otherwise.
    input_shape : sequence of int
        With the batch axis, which may be None: ``(None, 3, 224, 224)``. For several inputs, a sequence of shapes.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Returns
    -------
    Layer
        A layer for a module of ``torch.nn``; a `Sequential` if layers follow each other, else a `Graph`.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    TypeError, ValueError
        If it is not a module, can't be traced, does not accept the shape, or computes something that has no counterpart
        here: the message has all of these with their places in the module.

    Warns
    -----
    UserWarning
        If ``forward`` does not use some of the module's parameters, which the model then lacks.

    Examples
    --------
    A module, and the model with the same names (more in docs/pytorch.md)::

        module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        model = nn.from_torch(module, (None, 1, 8, 8), backend="numpy")
        assert list(model.state_dict()) == ["0.weight", "0.bias"]
    """
    torch = torch_for("from_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"from_torch: module must be a torch.nn.Module, got {type(module).__name__}; nn.load reads a file"
        )
    require_plain(module)
    # A batch of nothing shows as little as one of any size.
    shapes = [(shape[0] or None, *shape[1:]) for shape in input_shapes("from_torch", input_shape, least_batch=0)]
    placement = _with_dtype(placement, module)
    if is_leaf(module, torch):
        model = _alone(module, placement)
        found = {"": (model, module)}
    else:
        converted = Conversion(module, torch)
        model = converted.model(steps_of(module, shapes, torch), placement)
        found = converted.sources
    _copy_state(model, module, found)
    return model


def _with_dtype(placement: Placement, module: Any) -> Placement:
    """The placement, with the dtype of the module unless one is given."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.parameters() if p.is_floating_point()}
    if others := kinds - {*_FLOATS}:
        raise TypeError(
            f"from_torch: weights must be float32 or float64, got {', '.join(sorted(others))}; convert the module with "
            ".float()"
        )
    if len(kinds) != 1 or "dtype" in placement or isinstance(placement.get("backend"), Backend):
        return placement
    return {**placement, "dtype": kinds.pop()}


def _alone(module: Any, placement: Placement) -> Layer:
    """The layer for a module that is one."""
    try:
        return layer_for(module, placement)
    except (TypeError, ValueError) as error:
        raise ValueError(f"from_torch: {error}") from error


def _copy_state(model: Layer, module: Any, sources: Mapping[str, tuple[Layer, Any]]) -> None:
    """Copy weights, and what is trained and in training, from the modules; parameters that are one stay one."""
    used = set()
    first: dict[int, tuple[Layer, str]] = {}
    state = {}
    for path, (layer, source) in sources.items():
        for name, parameter in list(layer.parameters.items()):
            tensor = _attribute(source, name)
            used.add(id(tensor))
            state[full_name(path, name)] = tensor.detach().cpu().numpy()
            parameter.requires_grad = tensor.requires_grad
            owner, key = first.setdefault(id(tensor), (layer, name))
            layer.parameters[name] = owner.parameters[key]
        for name in layer.buffers:
            state[full_name(path, name)] = _attribute(source, name).detach().cpu().numpy()
    model.load_state_dict(state)
    model.train(module.training)
    for layer, source in sources.values():
        layer.train(source.training)
    if left := [name for name, each in module.named_parameters() if id(each) not in used]:
        warn(f"from_torch: forward does not use {', '.join(left)}; the model lacks them", stacklevel=3)


def _attribute(module: Any, name: str) -> Any:
    """An attribute of a module, or of a module within."""
    for part in name.split("."):
        module = getattr(module, part)
    return module
