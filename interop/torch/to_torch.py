"""A module of PyTorch for a model of this library: `to_torch`."""

from __future__ import annotations

from typing import Any

from ...backends import to_host
from ...common import checks
from ...layers import Add, Concat, Multiply
from ...layers.containers.dataflow import Node, dataflow_of
from ...layers.containers.joins import Join
from ...layers.core.layer import Layer
from ..packages import torch_for
from ..unsupported import Unsupported
from .counterparts import BY_LAYER

# Names by which the function of a join is found in PyTorch.
_JOINS: dict[type[Layer], str] = {Add: "add", Multiply: "mul"}


def to_torch(model: Layer) -> Any:
    """A module of PyTorch that computes what a model computes, with the same names and copies of its weights.

    Its ``state_dict`` has the names of the model's. What is trained, frozen, and in training or evaluation in the model
    is so in the module. It is on the CPU: ``to_torch(model).to("cuda")`` moves it.

    Parameters
    ----------
    model : Layer

    Returns
    -------
    torch.nn.Module
        The module of a layer, or a ``torch.fx.GraphModule`` of those of the layers within, whose code can be read
        (``module.code``) and exported. Layers without a module in PyTorch are those of `xpnn.interop.torch.modules`.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    TypeError, ValueError
        If it is not a layer, or has layers or arguments without a counterpart in PyTorch: the message has all of them
        with their full names.
    """
    torch = torch_for("to_torch")
    checks.instance("model", model, Layer)
    flow = dataflow_of(model)
    found: dict[int, Any] = {}
    modules: dict[str, Any] = {}
    complaints = []
    for node in flow.nodes:
        if isinstance(node.layer, Join):
            continue
        try:
            if id(node.layer) not in found:
                found[id(node.layer)] = _module_for(node.layer, torch)
            modules[node.name] = found[id(node.layer)]
        except Unsupported as error:
            complaints.append(f"{node.name or 'the model'}: {error}")
    if complaints:
        raise ValueError(f"to_torch: no counterpart in PyTorch for {'; '.join(complaints)}")
    if set(modules) == {""}:
        module = modules[""]
    else:
        graph = torch.fx.Graph()
        values = {name: graph.placeholder(name.replace(".", "_")) for name in flow.inputs}
        for node in flow.nodes:
            values[node.name] = _emit(graph, node, values, torch)
        graph.output(values[flow.output])
        module = torch.fx.GraphModule(modules, graph, type(model).__name__)
    _copy_state(flow.nodes, modules, torch)
    module.training = model.training
    return module


def _module_for(layer: Layer, torch: Any) -> Any:
    """A module for a layer of the library's own, in its dtype."""
    row = BY_LAYER.get(type(layer))
    if row is None:
        raise Unsupported(f"{type(layer).__name__} has none")
    module = row.module_of(layer, torch)
    return module.to(getattr(torch, layer.backend.dtype_name)) if layer.parameters or layer.buffers else module


def _emit(graph: Any, node: Node, values: dict[str, Any], torch: Any) -> Any:
    """Add a node to a graph of PyTorch."""
    inputs = tuple([values[name] for name in node.inputs])
    if isinstance(node.layer, Concat):
        return graph.call_function(torch.cat, (inputs, node.layer.axis))
    if (name := _JOINS.get(type(node.layer))) is not None:
        value = inputs[0]
        for other in inputs[1:]:
            value = graph.call_function(getattr(torch, name), (value, other))
        return value
    return graph.call_module(node.name, inputs)


def _copy_state(nodes: tuple[Node, ...], modules: dict[str, Any], torch: Any) -> None:
    """Copy weights, and what is trained and in training; parameters that are one stay one."""
    first: dict[Any, Any] = {}
    for node in nodes:
        if (module := modules.get(node.name)) is None:
            continue
        module.train(node.layer.training)
        for name, parameter in node.layer.parameters.items():
            owner, key = _owner(module, name)
            if parameter not in first:
                tensor = getattr(owner, key)
                with torch.no_grad():
                    tensor.copy_(torch.tensor(to_host(parameter.value)))
                first[parameter] = tensor.requires_grad_(parameter.requires_grad)
            setattr(owner, key, first[parameter])
        for name, array in node.layer.buffers.items():
            owner, key = _owner(module, name)
            getattr(owner, key).copy_(torch.tensor(to_host(array)))


def _owner(module: Any, name: str) -> tuple[Any, str]:
    """The module within that has an attribute, and the attribute's last name."""
    *path, key = name.split(".")
    for part in path:
        module = getattr(module, part)
    return module, key
