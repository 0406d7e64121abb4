"""Nodes of a graph of PyTorch as those of a `Graph` of this library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import getitem
from typing import Any

from ...layers import (
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    Flatten,
    Identity,
    MultiHeadAttention,
    Permute,
    Reshape,
)
from ...layers.containers.dataflow import free_name
from ...layers.containers.joins import Join
from ...layers.core.layer import Layer
from ...layers.core.placement import Placement
from ..assembly import assembled
from ..unsupported import Unsupported
from .counterparts import BY_MODULE, OTHERS
from .functions import FUNCTIONS, Call
from .trace import Step, is_in_place


def layer_for(module: Any, placement: Placement) -> Layer:
    """The layer for a module of PyTorch, or of `xpnn.interop.torch.modules`."""
    kind = type(module)
    name = kind.__name__ if kind.__module__.startswith("torch.nn.") else f".{kind.__name__}"
    convert = BY_MODULE[name].layer_of if name in BY_MODULE else OTHERS.get(name)
    if convert is None:
        raise Unsupported(f"{kind.__name__} has no counterpart")
    if getattr(module, "affine", False) and module.bias is None:
        raise Unsupported(f"{kind.__name__} with a weight and no bias")
    try:
        return convert(module, placement)
    except Unsupported as error:
        raise Unsupported(f"{kind.__name__} with {error}") from error


class Conversion:
    """The nodes of a graph of PyTorch as those of a `Graph`."""

    def __init__(self, module: Any, torch: Any) -> None:
        self._module, self._torch = module, torch
        self._names: dict[Any, str] = {}
        self._values: dict[Any, Any] = {}
        self._layers: dict[str, Layer] = {}
        self.entries: dict[str, tuple[Layer, tuple[str, ...]]] = {}
        #: Where the parameters of a node's layer are: the layer and the module.
        self.sources: dict[str, tuple[Layer, Any]] = {}
        self._complaints: list[str] = []
        self._inputs: list[str] = []
        self._output = ""
        # The place of each node in the order, and the node whose memory it shares.
        self._order: dict[Any, int] = {}
        self._memory: dict[Any, Any] = {}

    def model(self, steps: Sequence[Step], placement: Placement) -> Layer:
        """The model for these steps."""
        for step in steps:
            self._values[step.node] = step.value
            self._order[step.node] = len(self._order)
            try:
                self._convert(step)
            except (TypeError, ValueError) as error:
                self._complaints.append(f"{_place(step.node)}: {error}")
                self._names[step.node] = ""
        if self._complaints:
            raise ValueError(
                f"from_torch: {type(self._module).__name__} computes what has no counterpart here: "
                f"{'; '.join(self._complaints)}"
            )
        model, kept = assembled(self.entries, self._inputs, self._output, placement)
        self.sources = {name: source for name, source in self.sources.items() if name in kept}
        return model

    def _convert(self, step: Step) -> None:
        """Add what a node computes."""
        node = step.node
        if node.op == "placeholder" and not self._is_array(node):
            # An argument with a default.
            return
        if node.op == "placeholder":
            self._names[node] = self._free(str(node.target) if self._has_several_inputs(node) else "input")
            self._inputs.append(self._names[node])
        elif node.op == "output":
            self._finish(node)
        elif node.op == "call_module":
            self._add_module(node)
        elif node.op != "get_attr" and (self._is_array(node) or self._has_arrays(node)):
            self._add_function(step)

    def _has_several_inputs(self, node: Any) -> bool:
        return len([each for each in node.graph.nodes if each.op == "placeholder" and not each.args]) > 1

    def _is_array(self, node: Any) -> bool:
        return bool(isinstance(self._values[node], self._torch.Tensor))

    def _has_arrays(self, node: Any) -> bool:
        """Whether a node returns several arrays."""
        value = self._values[node]
        return isinstance(value, tuple | list) and any(isinstance(each, self._torch.Tensor) for each in value)

    def _finish(self, node: Any) -> None:
        (value,) = node.args
        if not isinstance(value, self._torch.fx.Node):
            raise Unsupported(f"forward returns a {type(value).__name__}, where a model returns one array")
        self._output = self._name_of(value)

    def _name_of(self, node: Any) -> str:
        """The name of the value of a node."""
        if node not in self._names:
            raise Unsupported(f"{node.target} is used as an array, which is a value of the module")
        return self._names[node]

    def _free(self, name: str) -> str:
        return free_name(name, {*self.entries, *self._inputs})

    def _add_module(self, node: Any) -> None:
        module = self._module.get_submodule(node.target)
        given = [*node.args, *node.kwargs.values()]
        if isinstance(module, self._torch.nn.MultiheadAttention) and type(module).__module__.startswith("torch.nn."):
            layer, given = _attention(module, node), given[:1]
        elif node.target in self._layers and self._layers[node.target].parameters:
            layer = self._layers[node.target]
        else:
            layer = layer_for(module, {})
        if len(given) != 1:
            raise Unsupported(f"{type(module).__name__} called with {len(given)} arguments")
        self._layers[node.target] = layer
        name = self._free(node.target)
        self.entries[name] = layer, (self._name_of(given[0]),)
        self.sources[name] = layer, module
        self._names[node] = name
        if is_in_place(node, self._module):
            self._change_in_place(node, given[0])
        elif isinstance(layer, _VIEWS):
            self._memory[node] = self._memory.get(given[0], given[0])

    def _add_function(self, step: Step) -> None:
        node = step.node
        if node.target is getitem and isinstance(node.args[0], self._torch.fx.Node):
            self._names[node] = self._item(node)
            return
        arrays = [each for each in _nodes_in(node) if self._is_array(each)]
        names = [self._name_of(each) for each in arrays]
        call = self._call(step, arrays)
        if not self._is_array(node):
            raise Unsupported(f"{call.name} returns several arrays")
        layers = FUNCTIONS[call.name][1](call)
        joins = len(layers) == 1 and isinstance(layers[0], Join)
        if joins:
            self._require_joinable(call, arrays)
        elif len(arrays) != 1:
            raise Unsupported(f"{call.name} of {len(arrays)} arrays")
        current: tuple[str, ...] = tuple(names)
        for layer in layers:
            name = self._free(node.name)
            self.entries[name] = layer, current
            current = (name,)
        self._names[node] = current[0]
        if is_in_place(node, self._module):
            self._change_in_place(node, arrays[0])
        elif all(isinstance(layer, _VIEWS) for layer in layers) and call.name not in _COPIES:
            self._memory[node] = self._memory.get(arrays[0], arrays[0])

    def _change_in_place(self, node: Any, array: Any) -> None:
        """Let what is later read of an array that a node overwrites be the node's result."""
        root = self._memory.get(array, array)
        before = self._names[array]
        for other in [each for each in self._order if self._memory.get(each, each) is root and each is not node]:
            if self._names.get(other) == before:
                self._names[other] = self._names[node]
            elif any(self._order.get(user, len(self._values)) > self._order[node] for user in other.users):
                raise Unsupported(f"changes {array.name} in place, of which {other.name} is another view")
        self._memory[node] = root

    def _item(self, node: Any) -> str:
        """The name of an item of what a module returned: only that of attention, whose output is the first."""
        whole, index = node.args
        if self._has_arrays(whole) and whole in self._names and (index == 0 or not self._names[whole]):
            return self._names[whole]
        raise Unsupported(f"getitem with {index!r}: parts of an array have no layer")

    def _require_joinable(self, call: Call, arrays: Sequence[Any]) -> None:
        shapes = [tuple(self._values[each].shape) for each in arrays]
        if len(arrays) < 2:
            raise Unsupported(f"{call.name} of an array and a number")
        if len({len(shape) for shape in shapes}) > 1 or len({shape[:1] for shape in shapes}) > 1:
            raise Unsupported(f"{call.name} of shapes {', '.join(map(str, shapes))}")

    def _call(self, step: Step, arrays: Sequence[Any]) -> Call:
        """A call with the values of its arguments."""
        node = step.node
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        plain = name if name in FUNCTIONS else name.rstrip("_")
        plain = plain if plain in FUNCTIONS else re.sub(r"[123]d$", "", plain)
        if plain not in FUNCTIONS:
            raise Unsupported(f"the {'method' if node.op == 'call_method' else 'function'} {name} has no counterpart")
        if refused := [key for key in ("out", "dtype") if node.kwargs.get(key) is not None]:
            raise Unsupported(f"{name} with {refused[0]}=")
        names = FUNCTIONS[plain][0]
        given: dict[str, Any] = {}
        for i, value in enumerate(node.args):
            given[names[i] if i < len(names) else f"*{i}"] = value
        given |= node.kwargs
        if given.get("training", False) is True and step.in_evaluation.kwargs.get("training", True) is not False:
            raise Unsupported(f"{name} in evaluation too; give it training=self.training")
        plain_values = {key: self._plain(value) for key, value in given.items()}
        shapes = [tuple(self._values[each].shape) for each in arrays]
        if not shapes:
            raise Unsupported(f"{name} of no array")
        return Call(plain, plain_values, len(shapes), shapes[0], tuple(getattr(step.value, "shape", ())))

    def _plain(self, value: Any) -> Any:
        """An argument with values in place of nodes, and None in place of arrays."""
        if isinstance(value, tuple | list):
            return type(value)([self._plain(each) for each in value])
        if isinstance(value, self._torch.fx.Node):
            return None if self._is_array(value) else self._values[value]
        return value


def _attention(module: Any, node: Any) -> Layer:
    """The layer for attention of a sequence to itself."""
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
    arguments = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    inputs = {arguments.pop(name, None) for name in ("query", "key", "value")}
    if len(inputs) > 1:
        raise Unsupported("attention to another sequence")
    others = {name: value for name, value in arguments.items() if name != "need_weights" and value not in (None, False)}
    others.pop("average_attn_weights", None)
    if others:
        raise Unsupported(f"attention with {', '.join(others)}")
    if not module.batch_first:
        raise Unsupported("attention with batch_first=False")
    if module.bias_k is not None or module.add_zero_attn or not module._qkv_same_embed_dim:
        raise Unsupported("attention with kdim, vdim, add_bias_kv or add_zero_attn")
    return MultiHeadAttention(
        module.embed_dim, module.num_heads, bias=module.in_proj_bias is not None, dropout=module.dropout
    )


# Layers whose results share memory with their input in PyTorch, dropout in evaluation; and functions that always copy.
_VIEWS = (Dropout, Dropout1d, Dropout2d, Dropout3d, Flatten, Identity, Permute, Reshape)
_COPIES = ("clone",)


def _nodes_in(node: Any) -> list[Any]:
    """The nodes among the arguments of a node, in order, each as often as it is given."""
    found: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, tuple | list):
            for each in value:
                visit(each)
        elif type(value) is type(node):
            found.append(value)

    for value in (*node.args, *node.kwargs.values()):
        visit(value)
    return found


def _place(node: Any) -> str:
    """Where in the module a node is."""
    stack = node.meta.get("nn_module_stack")
    if node.op == "call_module":
        return str(node.target)
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{node.name} in {path}" if path else str(node.name)
