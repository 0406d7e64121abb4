"""The operators of a graph as the layers of a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .... import layers as nn
from ....layers.containers.dataflow import free_name
from ....layers.core.errors import full_name
from ....layers.core.layer import Layer
from ....layers.core.placement import Placement
from ...assembly import assembled
from ...unsupported import Unsupported
from ..tensors import array_of
from . import layers as made
from .constants import FOLDED, computed
from .group_norms import Channelwise, channelwise, with_group_norms
from .joins import join, per_channel
from .layers import Made
from .names import clean, label, name_for
from .node import Node
from .operators import OPERATORS
from .patterns import gelus
from .shapes import Sized

_WITH_WEIGHTS = {
    "Conv": made.conv,
    "ConvTranspose": made.conv_transpose,
    "Gemm": made.gemm,
    "MatMul": made.matmul,
    "BatchNormalization": made.batch_norm,
    "InstanceNormalization": made.instance_norm,
    "GroupNormalization": made.group_norm,
    "LayerNormalization": made.layer_norm,
    "RMSNormalization": made.rms_norm,
    "PRelu": made.prelu,
    "Gather": made.gather,
}
_JOINS = ("Add", "Sum", "Mul", "Concat")
_WITH_CONSTANT = ("Add", "Sub", "Mul", "Div")


class Reading:
    """A graph while it is read.

    Parameters
    ----------
    onnx : module
    graph : GraphProto
    opset : int
    folder : Path
        Where data outside of the file must be.
    sized : Sized
    """

    def __init__(self, onnx: Any, graph: Any, opset: int, folder: Path, sized: Sized) -> None:
        self._onnx, self._graph, self._opset, self._folder, self._sized = onnx, graph, opset, folder, sized
        # One object for each node, by whose identity patterns name it.
        self._nodes = list(graph.node)
        self._constants: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._entries: dict[str, tuple[Layer, tuple[str, ...]]] = {}
        self._values: dict[str, dict[str, Any]] = {}
        # Products and sums with a number for each channel, by node, and the weights that constants are made of.
        self._channelwise: dict[str, Channelwise] = {}
        self._origins: dict[str, str] = {}
        self._shared: dict[tuple[Any, ...], str] = {}
        self._parameters: dict[tuple[str, str], tuple[Layer, str]] = {}
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._uses.update(each.name for each in graph.output)
        if graph.sparse_initializer:
            raise ValueError("it has sparse weights")
        for tensor in graph.initializer:
            if tensor.name in self._constants or not tensor.name:
                raise ValueError(f"two weights have the name {tensor.name!r}")
            self._constants[tensor.name] = array_of(onnx, tensor, folder)
        self._given = {*self._constants}

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        kinds = {str(each.dtype) for each in self._constants.values() if each.dtype.kind == "f" and each.ndim}
        return "float64" if kinds == {"float64"} else "float32"

    def model(self, placement: Placement) -> Layer:
        """The model with the file's weights, in evaluation."""
        inputs = self._input_names()
        self._names = dict(zip(self._sized.inputs, inputs, strict=True))
        self._convert_all()
        outputs = [each.name for each in self._graph.output]
        if len(outputs) != 1:
            raise ValueError(f"it has the outputs {', '.join(outputs) or 'none'}, where a model has one")
        if outputs[0] not in self._names:
            raise ValueError(f"its output {outputs[0]} is not computed from its inputs")
        output = self._names[outputs[0]]
        entries, output = with_group_norms(self._entries, self._values, self._channelwise, output, self._given)
        model, kept = assembled(entries, inputs, output, placement)
        state = {full_name(name, key): value for name in kept for key, value in self._values.get(name, {}).items()}
        model.load_state_dict(state, strict=False)
        return model.eval()

    def _input_names(self) -> list[str]:
        names = self._sized.inputs
        if len(names) == 1:
            return ["input"]
        if not names:
            raise ValueError("it has no inputs")
        return [clean(name) or f"input_{i}" for i, name in enumerate(names)]

    def _convert_all(self) -> None:
        """All operators, in the order of the file, in which each comes after its inputs."""
        complaints: list[str] = []
        known = {"", *self._constants, *self._sized.inputs}
        whole = gelus(self._nodes, self._constants | self._constant_nodes(), {each.name for each in self._graph.output})
        inside = {each for match in whole.values() for each in match.inner}
        for proto in self._nodes:
            if missing := [name for name in proto.input if name not in known]:
                raise ValueError(f"{label(proto)} has the input {missing[0]!r}, which nothing before it computes")
            if twice := [name for name in proto.output if name and name in known]:
                raise ValueError(f"{label(proto)} computes {twice[0]!r} once more")
            known.update(proto.output)
            if id(proto) in inside:
                continue
            try:
                if id(proto) in whole:
                    self._add(name_for(proto), nn.GELU(), (self._names[whole[id(proto)].source],), proto.output[0])
                else:
                    self._convert(proto)
            except Unsupported as error:
                complaints.append(f"{label(proto)}: {error}")
                self._names.update({name: "" for name in proto.output if name})
        if complaints:
            counts = Counter(complaints)
            raise ValueError(f"operators without a layer: {'; '.join(counts)}")

    def _constant_nodes(self) -> dict[str, Any]:
        """Small constants among the nodes."""
        found = {}
        for proto in self._nodes:
            if proto.op_type == "Constant" and proto.attribute and proto.attribute[0].name == "value":
                tensor = proto.attribute[0].t
                if len(tensor.dims) <= 1 and (not tensor.dims or tensor.dims[0] == 1):
                    found[proto.output[0]] = array_of(self._onnx, tensor, self._folder)
        return found

    def _convert(self, proto: Any) -> None:
        """One operator."""
        if proto.domain not in ("", "ai.onnx"):
            raise Unsupported(f"of the domain {proto.domain}")
        if not proto.output or not proto.output[0]:
            raise Unsupported("has no output")
        if any(attribute.HasField("ref_attr_name") or attribute.type in (5, 10) for attribute in proto.attribute):
            raise Unsupported("has a graph within, which depends on values")
        inputs = [self._value(name) for name in proto.input]
        if any(each == "" for each in inputs if isinstance(each, str)):
            # Of an operator without a layer, which is named already.
            self._names.update({name: "" for name in proto.output if name})
            return
        shapes = [self._sized.shapes.get(name) for name in proto.input]
        node = Node(proto, self._opset, inputs, shapes, self._sized.shapes.get(proto.output[0]))
        if proto.op_type == "Constant":
            self._constants[proto.output[0]] = self._constant(node)
        elif proto.op_type == "Shape" and node.arrays:
            first, last = node.integer("start", 0), node.integer("end", len(node.shape))
            self._constants[proto.output[0]] = np.asarray(node.shape, np.int64)[first:last]
        elif not node.arrays and proto.op_type in FOLDED:
            if proto.op_type in ("Identity", "Reshape", "Squeeze", "Unsqueeze"):
                self._origins[proto.output[0]] = self._origins.get(proto.input[0], proto.input[0])
            found = computed(self._onnx, proto, self._opset, inputs)
            self._constants.update(zip(proto.output, found, strict=False))
        elif not node.arrays:
            raise Unsupported("computes a constant")
        else:
            self._convert_array(proto, node)
            node.require_all_read()

    def _value(self, name: str) -> Any:
        """A constant, the name of an array, or None for an input that is left out."""
        if not name:
            return None
        return self._constants[name] if name in self._constants else self._names.get(name, "")

    def _constant(self, node: Node) -> Any:
        """The value of a node that is a constant."""
        if (tensor := node.tensor("value")) is not None:
            return array_of(self._onnx, tensor, self._folder)
        for read in ("value_int", "value_ints", "value_float", "value_floats"):
            if node.has(read):
                ints, one = "int" in read, not read.endswith("s")
                values = (
                    (node.integer(read, 0) if one else node.integers(read))
                    if ints
                    else (node.number(read, 0.0) if one else node.numbers(read))
                )
                return np.asarray(values, np.int64 if ints else np.float32)
        raise Unsupported("a constant that is no array of numbers")

    def _convert_array(self, proto: Any, node: Node) -> None:
        """An operator on arrays."""
        operator, name = proto.op_type, name_for(proto)
        if operator in _JOINS and len(node.arrays) == len(node.inputs):
            layer = join(node)
            if layer is None:
                self._names[proto.output[0]] = node.arrays[0]
            else:
                self._add(name, layer, tuple(node.arrays), proto.output[0])
        elif operator in _WITH_CONSTANT and len(node.arrays) == 1:
            if not self._gives_bias(node):
                made_layer = per_channel(node)
                self._add_made(made_layer, name, node.arrays[0], proto.output[0])
                noted = channelwise(node, made_layer, self._origins)
                if noted is not None:
                    self._channelwise[self._names[proto.output[0]]] = noted
        elif operator in _WITH_WEIGHTS:
            if len(node.arrays) != 1:
                raise Unsupported("a product or norm of several arrays")
            self._add_made(_WITH_WEIGHTS[operator](node), name, node.arrays[0], proto.output[0])
        elif operator in OPERATORS:
            if operator == "Cast":
                _require_float(node)
            current = node.arrays[0]
            if not isinstance(node.inputs[0], str) or len(node.arrays) > 1:
                raise Unsupported("computes with a second array")
            for layer in OPERATORS[operator](node):
                current = self._add(name, layer, (current,), proto.output[0])
            self._names[proto.output[0]] = current
        else:
            raise Unsupported("has no layer")

    def _add(self, name: str, layer: Layer, inputs: tuple[str, ...], output: str) -> str:
        name = free_name(name, {*self._entries, *self._names.values(), "input"})
        self._entries[name] = layer, inputs
        self._names[output] = name
        return name

    def _add_made(self, found: Made | None, name: str, source: str, output: str) -> None:
        """Add a layer with weights, named as these; one whose weights another layer has is the same layer."""
        if found is None:
            self._names[output] = source
            return
        key = (type(found.layer), repr(found.layer), *sorted(found.names.items()))
        own = bool(found.names) and all(each in self._given for each in found.names.values())
        weight = found.names.get("weight", "")
        if own and weight.endswith(".weight") and clean(weight) == weight:
            name = weight.removesuffix(".weight")
        elif own and weight == "weight":
            name = "layer"
        if own and key in self._shared:
            first = self._shared[key]
            self._add(name, self._entries[first][0], (source,), output)
            return
        name = self._add(name, found.layer, (source,), output)
        self._values[name] = dict(found.values)
        if own:
            self._shared[key] = name
        for ours, theirs in found.names.items():
            value = self._constants.get(theirs)
            place = (theirs, str(found.layer.parameters[ours].shape) if ours in found.layer.parameters else "")
            if theirs not in self._given or value is None or ours not in found.layer.parameters:
                continue
            if place in self._parameters:
                owner, other = self._parameters[place]
                found.layer.parameters[ours] = owner.parameters[other]
            else:
                self._parameters[place] = (found.layer, ours)

    def _gives_bias(self, node: Node) -> bool:
        """Whether an addition is the bias of the product before it, which nothing else uses; then it becomes that."""
        source, constant = node.arrays[0], next(each for each in node.inputs if not isinstance(each, str))
        name = next(name for name, each in zip(node.sources, node.inputs, strict=True) if isinstance(each, str))
        layer = self._entries.get(source, (None, ()))[0]
        if node.operator != "Add" or not isinstance(layer, nn.Dense) or layer.bias or self._uses[name] != 1:
            return False
        if constant is None or constant.shape != (layer.out_features,) or constant.dtype.kind != "f":
            return False
        if sum(entry[0] is layer for entry in self._entries.values()) > 1:
            return False
        _, inputs = self._entries[source]
        values = {**self._values[source], "bias": constant}
        dense = nn.Dense(layer.in_features, layer.out_features)
        bias = next(name for name, each in zip(node.sources, node.inputs, strict=True) if not isinstance(each, str))
        better = bias.removesuffix(".bias") if bias.endswith(".bias") and clean(bias) == bias else source
        renamed = better if better == source or better not in self._entries else source
        del self._entries[source], self._values[source]
        self._entries[renamed], self._values[renamed] = (dense, inputs), values
        self._names[node.outputs[0]] = renamed
        return True


def _require_float(node: Node) -> None:
    """Raise `Unsupported` unless a conversion keeps floats floats."""
    if node.integer("to", 1) not in (1, 11):
        raise Unsupported("a conversion to another type than float32 and float64")
