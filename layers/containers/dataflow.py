"""Which layer of a model computes from what: the model taken apart into layers and joins.

Conversions to and from other libraries meet here: whatever a model is built of, `dataflow_of` returns a list of layers,
each with the names of its inputs, and a `Graph` of them computes the same. Each container says by itself how data flows
through it, in its method ``_flow``, which adds its layers to a `Flow`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from ...common import checks
from ..core.errors import full_name
from ..core.layer import Layer
from ..core.output_shape import Shape, describes_forward
from .joins import Join


@dataclass(frozen=True)
class Node:
    """One layer, applied once.

    Attributes
    ----------
    name : str
        Full name of the layer in the model, ``"layer1.0.conv1"``, so that its parameters are ``name.weight``; for a
        join without a layer in the model, such as the sum of a `Residual`, a name that no other node has. It is empty
        if the whole model is one layer.
    layer : Layer
        A layer without layers within, a join (`Add`, `Multiply`, `Concat`), or a container that does not say how data
        flows through it.
    inputs : tuple of str
        Names of inputs of the model, or of earlier nodes.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]

    @property
    def takes_tuple(self) -> bool:
        """Whether the layer is called with a tuple, even of one array."""
        return takes_tuple(self.layer, len(self.inputs))


@dataclass(frozen=True)
class Dataflow:
    """The layers of a model in an order in which they can be computed.

    Attributes
    ----------
    nodes : tuple of Node
    inputs : tuple of str
        Names of the model's inputs: ``("input",)`` unless there are several, or a `Graph` names them.
    output : str
        Name of the node, or input, that is the output.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    output: str

    def shapes(self, *input_shapes: Sequence[int]) -> dict[str, Shape]:
        """The shapes of inputs and outputs of nodes by name, for the shapes of the inputs with their batch axes.

        Raises
        ------
        ValueError
            Unless the layers accept these shapes.
        """
        if len(input_shapes) != len(self.inputs):
            raise ValueError(f"there must be a shape for each of {len(self.inputs)} inputs, got {len(input_shapes)}")
        found = {
            name: checks.shape(f"shape of {name}", shape, empty=True)
            for name, shape in zip(self.inputs, input_shapes, strict=True)
        }
        for node in self.nodes:
            shapes = tuple([found[name] for name in node.inputs])
            found[node.name] = node.layer.output_shape(shapes if node.takes_tuple else shapes[0])
        return found


class Flow:
    """A dataflow to which containers add their layers."""

    def __init__(self, model: Layer) -> None:
        names = {name for name, _ in model.named_places()}
        self.inputs = tuple([free_name(name, names) for name in input_names(model) or ("input",)])
        self.nodes: dict[str, Node] = {}
        self._taken = {*names, *self.inputs}

    def add(self, name: str, layer: Layer, inputs: Sequence[str]) -> str:
        """Add a layer as a node with the outputs of that name as inputs; returns the name of the node."""
        if name in self.nodes:
            raise ValueError(f"two layers of the model have the name {name!r}; rename one of them")
        self.nodes[name] = Node(name, layer, tuple(inputs))
        return name

    def join(self, path: str, join: Join, inputs: Sequence[str]) -> str:
        """Add a join that a container at ``path`` computes by itself; returns the name of its node."""
        name = full_name(path, type(join).__name__.lower())
        name = free_name(name, self._taken)
        self._taken.add(name)
        return self.add(name, join, inputs)

    def child(self, container: Any, name: str, path: str, inputs: tuple[str, ...]) -> str:
        """Add the child of that name of a container at ``path``; returns the name of its output."""
        return self.pass_through(container.children[name], full_name(path, container.names.get(name, name)), inputs)

    def pass_through(self, layer: Layer, path: str, inputs: tuple[str, ...]) -> str:
        """Add a layer, or what is within it; returns the name of its output."""
        if not describes_forward(layer, "_flow"):
            return self.add(path, layer, inputs)
        return layer._flow(self, path, inputs)


def dataflow_of(model: Layer) -> Dataflow:
    """The layers of a model and what flows from which to which.

    The layers are the model's own objects. `Sequential`, `Residual`, `Parallel`, `PerInput`, `Checkpointed` and `Graph`
    are taken apart, and `Identity` is left out. A layer in several places is a node in each. A container that defines
    its own ``forward`` is one node.

    Raises
    ------
    ValueError
        If two layers have one name, as by a ``names`` of a container of your own, or for a join by itself.
    """
    checks.instance("model", model, Layer)
    if isinstance(model, Join):
        raise ValueError(f"{model!r} has any number of inputs by itself; make it a node of a Graph")
    flow = Flow(model)
    output = flow.pass_through(model, "", flow.inputs)
    return Dataflow(tuple(flow.nodes.values()), flow.inputs, output)


def input_names(layer: Layer) -> tuple[str, ...]:
    """Names of a layer's inputs, of one array or of a tuple of several; none if it has any number, or that is unknown.

    A layer that is called with a tuple of several arrays has a method ``_input_names``.
    """
    if type(layer).forward is Layer.forward:
        return ("input",)
    return layer._input_names() if describes_forward(layer, "_input_names") else ()


def free_name(name: str, taken: Container[str]) -> str:
    """The name, with a number behind it if it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def takes_tuple(layer: Layer, count: int) -> bool:
    """Whether a layer is called with a tuple of that many inputs, rather than with one array."""
    return count > 1 or isinstance(layer, Join)
