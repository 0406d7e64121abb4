"""Group norm, which opsets before 21 have only as several operators: groups as instances, a scale and a shift.

``Reshape`` to ``(N, groups, ...)``, ``InstanceNormalization`` with ones and zeros, ``Reshape`` back, and a product and
a sum with a number for each channel: `to_onnx` and PyTorch write it so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .... import layers as nn
from ....layers.containers.dataflow import free_name
from ....layers.core.layer import Layer
from .layers import Made
from .names import clean
from .node import Node

Entries: TypeAlias = dict[str, tuple[Layer, tuple[str, ...]]]


@dataclass(frozen=True)
class Channelwise:
    """A product or sum with a number for each channel.

    Attributes
    ----------
    operator : str
        ``"Mul"`` or ``"Add"``.
    values : array
    source : str
        The name of the weight in the file from which the numbers are.
    """

    operator: str
    values: Any
    source: str


@dataclass(frozen=True)
class GroupNorm:
    """A match: the nodes that it replaces, in order, its input, layer and values, and the name of its weight."""

    nodes: tuple[str, ...]
    source: str
    layer: Layer
    values: Mapping[str, Any]
    weight: str


def channelwise(node: Node, found: Made | None, origins: Mapping[str, str]) -> Channelwise | None:
    """The product or sum with a number for each channel that a node is; ``origins`` says of what constants are made."""
    if found is None or node.operator not in ("Mul", "Add") or isinstance(found.layer, nn.PositionEmbedding):
        return None
    source = next(each for each, value in zip(node.sources, node.inputs, strict=True) if not isinstance(value, str))
    values = found.values["bias" if node.operator == "Add" else "weight"].reshape(-1)
    return Channelwise(node.operator, values, origins.get(source, source))


def with_group_norms(
    entries: Entries,
    values: dict[str, dict[str, Any]],
    channelwise: Mapping[str, Channelwise],
    output: str,
    weights: Collection[str],
) -> tuple[Entries, str]:
    """The nodes with group norms in place of what the file has for them, and the output; changes ``values``.

    ``weights`` are the names of the file's weights, after which layers are named.
    """
    renamed: dict[str, str] = {}
    for match in _matches(entries, values, channelwise, output):
        last = match.nodes[-1]
        for each in match.nodes:
            values.pop(each, None)
        own = match.weight in weights and match.weight.endswith(".weight") and clean(match.weight) == match.weight
        taken = {*entries} - {*match.nodes}
        name = free_name(match.weight.removesuffix(".weight") if own else match.nodes[1], taken)
        kept: Entries = {}
        for key, (layer, inputs) in entries.items():
            if key == last:
                kept[name] = (match.layer, (renamed.get(match.source, match.source),))
            elif key not in match.nodes:
                kept[key] = (layer, tuple([name if each == last else each for each in inputs]))
        entries, values[name], renamed[last] = kept, dict(match.values), name
        output = name if output == last else output
    return entries, output


def _matches(
    entries: Entries, values: Mapping[str, Mapping[str, Any]], channelwise: Mapping[str, Channelwise], output: str
) -> list[GroupNorm]:
    """All group norms among the nodes."""
    consumers: dict[str, list[str]] = {}
    for name, (_, inputs) in entries.items():
        for each in inputs:
            consumers.setdefault(each, []).append(name)

    def after(name: str) -> str | None:
        """The only consumer of a node that is not the output."""
        users = consumers.get(name, [])
        return users[0] if len(users) == 1 and name != output else None

    found = []
    for name, (layer, inputs) in entries.items():
        if not isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) or len(inputs) != 1:
            continue
        own, before = values.get(name, {}), inputs[0]
        groups = layer.num_features
        plain = own and bool(np.all(own["weight"] == 1.0)) and bool(np.all(own["bias"] == 0.0))
        split = entries.get(before, (None, ()))[0]
        back = after(name)
        whole = entries[back][0] if back is not None else None
        if not plain or not isinstance(split, nn.Reshape) or not isinstance(whole, nn.Reshape) or after(before) != name:
            continue
        channels = whole.shape[0]
        if split.shape[0] != groups or channels % groups or back is None:
            continue
        nodes, affine = [before, name, back], []
        for operator in ("Mul", "Add"):
            following = after(nodes[-1])
            part = channelwise.get(following or "")
            if following is None or part is None or part.operator != operator or len(part.values) != channels:
                break
            nodes.append(following)
            affine.append(part)
        if len(affine) == 1:
            continue
        norm = nn.GroupNorm(groups, channels, eps=layer.eps, affine=bool(affine))
        arrays = dict(zip(("weight", "bias"), (part.values for part in affine), strict=False))
        source = affine[0].source if affine else ""
        found.append(GroupNorm(tuple(nodes), entries[before][1][0], norm, arrays, source))
    return found
