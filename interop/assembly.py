"""A model of layers that name their inputs: a `Sequential` if they follow each other, else a `Graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from ..layers import Graph, Identity, Sequential
from ..layers.containers.joins import Join
from ..layers.core.layer import Layer
from ..layers.core.placement import Placement

#: A layer and the names of its inputs, by its own name.
Entries: TypeAlias = Mapping[str, tuple[Layer, tuple[str, ...]]]


def assembled(entries: Entries, inputs: Sequence[str], output: str, placement: Placement) -> tuple[Layer, set[str]]:
    """The model, and the names of the layers that it has: those on which the output depends."""
    needed = {output}
    for name in reversed(list(entries)):
        if name in needed:
            needed.update(entries[name][1])
    kept = {name: entry for name, entry in entries.items() if name in needed}
    if not kept:
        return Sequential({"identity": Identity()}, **placement), set()
    nested = _chain(kept, inputs, output)
    if nested is not None:
        return Sequential(nested, **placement), {*kept}
    return Graph(kept, output, inputs, **placement), {*kept}


def _chain(entries: Entries, inputs: Sequence[str], output: str) -> dict[str, Layer] | None:
    """Layers by name, within `Sequential` where names have dots; None unless each follows the one before."""
    if len(inputs) > 1 or len({id(layer) for layer, _ in entries.values()}) < len(entries):
        return None
    before = tuple(inputs)
    for name, (layer, sources) in entries.items():
        if sources != before or isinstance(layer, Join):
            return None
        before = (name,)
    return _nested([(name.split("."), layer) for name, (layer, _) in entries.items()]) if before == (output,) else None


def _nested(parts: Sequence[tuple[Sequence[str], Layer]]) -> dict[str, Layer] | None:
    """Layers one after the other by name, those with a common first part of their names within a `Sequential`.

    None if that would change a name, or the order.
    """
    found: dict[str, Layer] = {}
    for first, group in groupby(parts, key=lambda part: part[0][0]):
        members = list(group)
        if first in found or (len(members) > 1 and any(len(path) == 1 for path, _ in members)):
            return None
        if len(members[0][0]) == 1:
            found[first] = members[0][1]
            continue
        inner = _nested([(path[1:], layer) for path, layer in members])
        if inner is None:
            return None
        found[first] = Sequential(inner)
    return found
