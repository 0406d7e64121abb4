"""All that a run is at one moment, as host arrays and plain values, and a run put back to it.

Two runs that are equal in this go on alike to the last bit: parameters and buffers, what optimizer and schedule
remember, the places of random streams, of the pass over the data and of the sums within it. How a parameter lies in
memory belongs to it, since products of the same numbers that lie otherwise may be added in another order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import to_host
from ..common.checks import is_integer, is_number
from ..layers.core.layer import Layer
from ..layers.core.snapshot import streams
from .optimizers.base import Optimizer

Arrays = dict[str, np.ndarray[Any, Any]]


_FACTS: dict[str, Any] = {
    "about": dict,
    "numerics": str,
    "model": {"dtype": str, "order": dict, "streams": dict},
    "optimizer": {"kind": str, "settings": dict, "numbers": dict},
    "loader": dict,
    "first_pass": int,
    "epochs": int,
    "epoch": int,
    "batch": int,
    "steps": int,
    "seconds": (int, float),
    "skipped": list,
    "tally": dict,
    "settings": dict,
    "history": list,
}


def require_facts(facts: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless the facts of a checkpoint are those of a run, before any of them is used."""
    _require_form(facts, _FACTS, "")
    if "schedule" not in facts:
        raise ValueError("it has no schedule")
    if facts["schedule"] is not None:
        _require_form(facts, {"schedule": {"kind": str, "state": dict}}, "")
    if not all(isinstance(each, dict) for each in facts["optimizer"]["numbers"].values()):
        raise ValueError("its optimizer's numbers can't be right")
    if len(facts["skipped"]) != 2 or not all(map(is_integer, facts["skipped"])):
        raise ValueError("its skipped can't be right")
    if not all(isinstance(row, dict) and all(map(is_number, row.values())) for row in facts["history"]):
        raise ValueError("its history can't be right")
    if not all(is_integer(position) and position >= 0 for position in facts["model"]["streams"].values()):
        raise ValueError("its model's streams can't be right")
    for name in ("first_pass", "epoch", "batch", "steps"):
        if facts[name] < (name == "epoch"):
            raise ValueError(f"its {name} can't be right")


def _require_form(facts: Mapping[str, Any], form: Mapping[str, Any], owner: str) -> None:
    for name, kind in form.items():
        if name not in facts:
            raise ValueError(f"it has no {owner}{name}")
        inner = kind if isinstance(kind, dict) else None
        if not isinstance(facts[name], dict if inner else kind) or isinstance(facts[name], bool):
            raise ValueError(f"its {owner}{name} can't be right")
        if inner:
            _require_form(facts[name], inner, f"{name}'s ")


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


def require_optimizer_state(optimizer: Optimizer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless a state of its kind is one of this optimizer; nothing is changed."""
    if facts["kind"] != type(optimizer).__name__:
        return
    for what, found, mine in (
        ("settings", facts["settings"].keys(), set(optimizer.settings)),
        ("parameters", facts["numbers"].keys(), optimizer.parameters.keys()),
    ):
        if found != mine:
            raise ValueError(f"its optimizer's {what} are {', '.join(found)}, this one's {', '.join(sorted(mine))}")
    memory = set(optimizer._state_names())
    for parameter in optimizer.parameters:
        kept = memory & {name.rpartition("/")[2] for name in arrays if name.rpartition("/")[0] == parameter}
        if kept and kept != memory:
            raise ValueError(f"its optimizer remembers {', '.join(sorted(kept))} of {parameter}, not all it should")
    if unknown := {name.rpartition("/")[0] for name in arrays} - optimizer.parameters.keys():
        raise ValueError(f"its optimizer remembers {', '.join(sorted(unknown))}, which it does not update")


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
