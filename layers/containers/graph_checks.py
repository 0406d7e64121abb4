"""Checks of the arguments of a `Graph`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...common import checks
from ..core.errors import full_name
from ..core.layer import Layer
from .dataflow import input_names
from .joins import Join


def checked_names(what: str, names: Any) -> tuple[str, ...]:
    """Distinct names of values, at least one."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise TypeError(f"Graph: {what} must be a tuple of names, got {checks.shown(names)}")
    for name in names:
        _require_name(what, name)
    if len({*names}) < len(names):
        raise ValueError(f"Graph: {what} must have distinct names, got {', '.join(names)}")
    return tuple(names)


def checked_nodes(nodes: Any, inputs: tuple[str, ...]) -> tuple[dict[str, Layer], dict[str, tuple[str, ...]]]:
    """The layers, and the names of their inputs, by name; each input is one of the net or a node before."""
    if not isinstance(nodes, Mapping) or not nodes:
        raise TypeError(f"Graph: nodes must be a dict of name to (layer, inputs), got {checks.shown(nodes)}")
    layers: dict[str, Layer] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for name, entry in nodes.items():
        _require_name("nodes", name)
        if name in inputs:
            raise ValueError(f"Graph: {name!r} is the name of an input and of a node")
        if not isinstance(entry, tuple | list) or len(entry) != 2 or not isinstance(entry[0], Layer):
            raise TypeError(
                f"Graph: node {name!r} must be (layer, name or names of its inputs), got {checks.shown(entry)}"
            )
        layer, given = entry
        sources[name] = _inputs_of(name, layer, given)
        for each in sources[name]:
            if each not in layers and each not in inputs:
                raise ValueError(f"Graph: node {name!r} has the input {each!r}, which is {_unknown(each, name, nodes)}")
        layers[name] = layer
    return layers, sources


def require_connected(sources: Mapping[str, tuple[str, ...]], inputs: tuple[str, ...], output: str) -> None:
    """Raise `ValueError` for nodes and inputs on which the output does not depend."""
    needed = {output}
    for name in reversed(list(sources)):
        if name in needed:
            needed.update(sources[name])
    for what, names in (("nodes", [*sources]), ("inputs", inputs)):
        if left := [name for name in names if name not in needed]:
            raise ValueError(f"Graph: the output {output!r} does not depend on the {what} {', '.join(map(repr, left))}")


def require_distinct_names(graph: Any) -> None:
    """Raise `ValueError` if two layers, or two parameters or buffers, would have one full name."""
    names: Counter[str] = Counter()
    for name, layer in graph.children.items():
        parts = list(layer.named_places(name))
        # The layer of a `Checkpointed` has the same name.
        names.update(list(dict.fromkeys(part for part, _ in parts)))
        names.update(full_name(part, key) for part, each in parts for key in (*each.parameters, *each.buffers))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"Graph: several layers or parameters have the name {', '.join(twice)}; rename a node")


def _require_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not all(name.split(".")):
        raise ValueError(f"Graph: {what} must have names with no empty part between dots, got {checks.shown(name)}")


def _inputs_of(name: str, layer: Layer, given: Any) -> tuple[str, ...]:
    """The names of a node's inputs, of the number that its layer has."""
    if isinstance(given, str):
        if isinstance(layer, Join):
            raise ValueError(
                f"Graph: node {name!r}: {layer!r} has several inputs; give a tuple of names, got {given!r}"
            )
        given = (given,)
    if not isinstance(given, tuple | list) or not given or not all(isinstance(each, str) for each in given):
        raise TypeError(f"Graph: node {name!r}: inputs must be a name or a tuple of names, got {checks.shown(given)}")
    expected = input_names(layer)
    if expected and len(expected) != len(given):
        count = (
            f"{len(expected)} inputs" if len(expected) > 1 else "one input; join several with Add, Multiply or Concat"
        )
        raise ValueError(f"Graph: node {name!r}: {layer!r} has {count}, got {', '.join(given)}")
    return tuple(given)


def _unknown(each: str, name: str, nodes: Mapping[str, Any]) -> str:
    if each == name:
        return "the node itself; a net must have no cycles"
    if each in nodes:
        return "a later node; list each node after its inputs, without cycles"
    return "neither an input of the net nor a node"
