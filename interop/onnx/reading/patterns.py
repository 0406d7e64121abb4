"""Several operators that are one layer: GELU, which older opsets lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np


class Gelu(NamedTuple):
    """The operators of one, without the last, by identity; and the name of its input."""

    inner: frozenset[int]
    source: str


def gelus(nodes: Sequence[Any], constants: Mapping[str, Any], outputs: set[str]) -> dict[int, Gelu]:
    """The formula ``x (1 + erf(x / sqrt(2))) / 2``, its factors in any order, by the identity of the last operator."""
    producer = {name: node for node in nodes for name in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found: dict[int, Gelu] = {}
    for node in nodes:
        if node.op_type != "Erf":
            continue
        scaled = producer.get(node.input[0])
        source = _scaled(scaled, constants)
        added = _only(consumers, node.output[0], "Add")
        if scaled is None or source is None or added is None or not _has(added, 1.0, constants):
            continue
        match = _product(added, source, producer, consumers, constants)
        if match is None or match[0].output[0] == added.output[0]:
            continue
        last, others = match
        inner = frozenset(map(id, (scaled, node, added, *others)))
        inside = {name for each in (scaled, node, added, *others) for name in each.output}
        users = [each for name in inside for each in consumers.get(name, [])]
        if not outputs & inside and all(id(each) in inner or each is last for each in users):
            found[id(last)] = Gelu(inner, source)
    return found


def _scaled(node: Any, constants: Mapping[str, Any]) -> str | None:
    """The array that a node multiplies by ``1 / sqrt(2)``."""
    if node is None or node.op_type not in ("Mul", "Div"):
        return None
    wanted = sqrt(0.5) if node.op_type == "Mul" else sqrt(2.0)
    arrays = [name for name in node.input if name not in constants]
    if len(arrays) == 1 and _has(node, wanted, constants) and (node.op_type == "Mul" or arrays[0] == node.input[0]):
        return str(arrays[0])
    return None


def _has(node: Any, wanted: float, constants: Mapping[str, Any]) -> bool:
    """Whether an input of a node is that number."""
    return any(name in constants and _is_number(constants[name], wanted) for name in node.input)


def _is_number(value: Any, wanted: float) -> bool:
    return bool(value.size == 1 and abs(float(np.reshape(value, -1)[0]) - wanted) < 1e-6)


def _only(consumers: Mapping[str, list[Any]], name: str, operator: str) -> Any:
    """The only consumer of a value, if it is of that kind."""
    users = consumers.get(name, [])
    return users[0] if len(users) == 1 and users[0].op_type == operator else None


def _product(
    added: Any,
    source: str,
    producer: Mapping[str, Any],
    consumers: Mapping[str, list[Any]],
    constants: Mapping[str, Any],
) -> tuple[Any, list[Any]] | None:
    """The last of two products that bring in the array and a half, and the other one."""
    first = _only(consumers, added.output[0], "Mul")
    if first is None:
        return None
    other = next((name for name in first.input if name != added.output[0]), None)
    half = producer.get(other) if other is not None else None
    if half is not None and half.op_type == "Mul" and source in half.input and _has(half, 0.5, constants):
        return first, [half]
    second = _only(consumers, first.output[0], "Mul")
    if second is None:
        return None
    if (other == source and _has(second, 0.5, constants)) or (_has(first, 0.5, constants) and source in second.input):
        return second, [first]
    return None
