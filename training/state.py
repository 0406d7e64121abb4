"""All that a run is at one moment, as host arrays and plain values, and a run put back to it.

Two runs that are equal in this go on alike to the last bit: parameters and buffers, what optimizer and schedule
remember, the places of random streams, of the pass over the data and of the sums within it. How a parameter lies in
memory belongs to it, since products of the same numbers that lie otherwise may be added in another order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import to_host
from ..layers.base import Layer
from ..layers.snapshot import streams
from .optimizer import Optimizer

Arrays = dict[str, np.ndarray[Any, Any]]


def model_state(model: Layer) -> tuple[Arrays, dict[str, Any]]:
    """A model's arrays by full name; how its parameters lie in memory, and where its random streams are."""
    arrays = {name: np.array(to_host(array)) for name, array in model.state_dict().items()}
    return arrays, {
        "dtype": model.backend.dtype_name,
        "order": {name: p.backend.memory_order(p.value) for name, p in model.named_parameters()},
        "streams": model_streams(model),
    }


def model_streams(model: Layer) -> dict[str, int]:
    """Where a model's random streams are, by their layers' full names."""
    return {name: stream.position for name, stream in streams(model)}


def load_model_state(model: Layer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Put a model where `model_state` found it; `ValueError` for another model's, and then nothing is replaced."""
    places = dict(streams(model))
    if facts["dtype"] != model.backend.dtype_name:
        raise ValueError(f"the weights are {facts['dtype']}, this model computes in {model.backend.dtype_name}")
    # Names of arrays that differ say more, and load_state_dict lists them.
    if arrays.keys() == model.state_dict().keys() and facts["streams"].keys() != places.keys():
        named = [", ".join(found) or "no layer" for found in (facts["streams"], places)]
        raise ValueError(f"the random streams are of {named[0]}, the model's of {named[1]}")
    model.load_state_dict({name: laid(array, facts["order"].get(name)) for name, array in arrays.items()})
    for _, parameter in model.named_parameters():
        parameter.keep()
    for name, stream in places.items():
        stream.position = facts["streams"][name]


def optimizer_state(optimizer: Optimizer) -> tuple[Arrays, dict[str, Any]]:
    """What an optimizer remembers: arrays as ``parameter/name``, numbers and settings apart."""
    state = optimizer.state_dict()
    arrays: Arrays = {}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, remembered in state["state"].items():
        numbers[parameter] = {}
        for name, value in remembered.items():
            if hasattr(value, "dtype"):
                arrays[f"{parameter}/{name}"] = np.array(to_host(value))
            else:
                numbers[parameter][name] = value
    return arrays, {"kind": type(optimizer).__name__, "settings": state["settings"], "numbers": numbers}


def load_optimizer_state(optimizer: Optimizer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Put an optimizer where `optimizer_state` found it; `ValueError` for another kind's."""
    if facts["kind"] != type(optimizer).__name__:
        raise ValueError(f"the state is that of {facts['kind']}, the optimizer is {type(optimizer).__name__}")
    remembered: dict[str, dict[str, Any]] = {name: dict(numbers) for name, numbers in facts["numbers"].items()}
    for name, array in arrays.items():
        parameter, _, key = name.rpartition("/")
        owner = optimizer.parameters.get(parameter)
        order = None if owner is None else owner.backend.memory_order(owner.value)
        remembered[parameter][key] = laid(array, order)
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in facts["settings"].items()}
    optimizer.load_state_dict({"settings": settings, "state": remembered})


def laid(array: np.ndarray[Any, Any], order: Sequence[int] | None) -> np.ndarray[Any, Any]:
    """The array, its axes in memory from the slowest to the fastest in that order."""
    if order is None or len(order) != array.ndim:
        return array
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays with a prefix before their names."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def part(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arrays whose names begin so, without it."""
    return {name.removeprefix(f"{prefix}/"): a for name, a in arrays.items() if name.startswith(f"{prefix}/")}
