"""State of a model and an optimizer as host arrays and plain values, as a checkpoint holds it, and back.

The memory layout of each parameter is part of it, because sums over another layout may be added in another order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import to_host
from ..common.checks import is_integer, is_number
from ..layers.core.layer import Layer
from ..layers.core.snapshot import streams
from ..layers.core.state_dict import host_state
from .ema import EMA
from .optimizers import Optimizer
from .optimizers.saved_state import require_same_parameters, saved_groups, with_later

Arrays = dict[str, np.ndarray[Any, Any]]

# Names and types of the facts of a checkpoint.
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
    """Raise `ValueError` unless the facts of a checkpoint have the form of a run's; nothing is used before."""
    _require_form(facts, _FACTS, "")
    if "schedule" not in facts:
        raise ValueError("it has no schedule")
    if facts["schedule"] is not None:
        _require_form(facts, {"schedule": {"kind": str, "state": dict}}, "")
    groups = facts["optimizer"].get("groups", [])
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    ):
        raise ValueError("its optimizer's groups can't be right")
    if not all(isinstance(each, dict) for each in facts["optimizer"]["numbers"].values()):
        raise ValueError("its optimizer's numbers can't be right")
    if len(facts["skipped"]) != 2 or not all(map(is_integer, facts["skipped"])):
        raise ValueError("its skipped can't be right")
    if not all(isinstance(row, dict) and all(map(_is_numeric, row.values())) for row in facts["history"]):
        raise ValueError("its history can't be right")
    if not all(is_integer(position) and position >= 0 for position in facts["model"]["streams"].values()):
        raise ValueError("its model's streams can't be right")
    for key in ("frozen", "evaluated"):
        # Checkpoints of earlier versions have none.
        names = facts["model"].get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"its model's {key} can't be right")
    for name in ("first_pass", "epoch", "batch", "steps"):
        if facts[name] < (name == "epoch"):
            raise ValueError(f"its {name} can't be right")


def _is_numeric(value: Any) -> bool:
    """Whether it is a number, or nested lists of numbers, as confusion matrices are."""
    return is_number(value) or (isinstance(value, list) and all(map(_is_numeric, value)))


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
    """A model's arrays by full name; memory layouts of its parameters, and positions of its random streams."""
    hosts = host_state(model)
    copies = {key: np.array(host) for key, host in {id(host): host for host in hosts.values()}.items()}
    return {name: copies[id(host)] for name, host in hosts.items()}, {
        "dtype": model.backend.dtype_name,
        "order": {name: p.backend.memory_order(p.value) for name, p in model.named_parameters()},
        # Their layout is that of their first gradient; one that was frozen so far has yet to get its own.
        "updated": [name for name, p in model.named_parameters() if p.is_own_value()],
        "streams": model_streams(model),
    }


def model_streams(model: Layer) -> dict[str, int]:
    """Positions of a model's random streams, by full names of their layers."""
    return {name: stream.position for name, stream in streams(model)}


def load_model_state(model: Layer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Load what `model_state` returned; `ValueError` if it is another model's, and then nothing is replaced."""
    own_streams = dict(streams(model))
    if facts["dtype"] != model.backend.dtype_name:
        raise ValueError(f"the weights are {facts['dtype']}, this model computes in {model.backend.dtype_name}")
    # If names of arrays differ, load_state_dict lists these instead.
    if arrays.keys() == model.state_dict().keys() and facts["streams"].keys() != own_streams.keys():
        named = [", ".join(found) or "no layer" for found in (facts["streams"], own_streams)]
        raise ValueError(f"the random streams are of {named[0]}, the model's of {named[1]}")
    model.load_state_dict({name: in_layout(array, facts["order"].get(name)) for name, array in arrays.items()})
    updated = facts.get("updated")
    for name, parameter in model.named_parameters():
        if updated is None or name in updated:
            parameter.adopt_value()
    for name, stream in own_streams.items():
        stream.position = facts["streams"][name]


def average_state(ema: EMA | None) -> Arrays:
    """The averages of a model's weights by name, with their memory layout; nothing without an average."""
    averages = {} if ema is None else ema.state_dict()["averages"]
    return {name: np.array(to_host(array)) for name, array in averages.items()}


def load_average_state(ema: EMA | None, averages: Arrays) -> None:
    """Load what `average_state` returned."""
    if ema is not None:
        ema.load_state_dict({"decay": ema.decay, "averages": averages})


def optimizer_state(optimizer: Optimizer) -> tuple[Arrays, dict[str, Any]]:
    """State of an optimizer: arrays as ``parameter/name``; its class, settings, groups and numbers."""
    state = optimizer.state_dict()
    arrays: Arrays = {}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, stored in state["state"].items():
        numbers[parameter] = {}
        for name, value in stored.items():
            if hasattr(value, "dtype"):
                arrays[f"{parameter}/{name}"] = np.array(to_host(value))
            else:
                numbers[parameter][name] = value
    facts = {"kind": type(optimizer).__name__, "settings": state["settings"], "numbers": numbers}
    return arrays, {**facts, "groups": state["param_groups"]}


def groups_of(facts: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[str]]]:
    """For each group of an optimizer that was saved its settings, and the names of its parameters."""
    state = {"settings": facts["settings"], "state": facts["numbers"], "param_groups": facts.get("groups")}
    return saved_groups(state, ())


def load_optimizer_state(optimizer: Optimizer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Load what `optimizer_state` returned; `ValueError` if it is of another class."""
    if facts["kind"] != type(optimizer).__name__:
        raise ValueError(f"the state is that of {facts['kind']}, the optimizer is {type(optimizer).__name__}")
    state: dict[str, dict[str, Any]] = {name: dict(numbers) for name, numbers in facts["numbers"].items()}
    for name, array in arrays.items():
        parameter, _, key = name.rpartition("/")
        owner = optimizer.parameters.get(parameter)
        order = None if owner is None else owner.backend.memory_order(owner.value)
        state[parameter][key] = in_layout(array, order)
    groups = [{**_with_tuples(settings), "params": names} for settings, names in groups_of(facts)]
    settings = _with_tuples(facts["settings"])
    optimizer.load_state_dict({"settings": settings, "state": state, "param_groups": groups})


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def require_optimizer_state(optimizer: Optimizer, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the state of an optimizer of this class with other settings, parameters or arrays."""
    if facts["kind"] != type(optimizer).__name__:
        return
    for what, found, mine in (
        ("settings", with_later(facts["settings"], optimizer.settings).keys(), set(optimizer.settings)),
        ("parameters", facts["numbers"].keys(), optimizer.parameters.keys()),
    ):
        if found != mine:
            raise ValueError(f"its optimizer's {what} are {', '.join(found)}, this one's {', '.join(sorted(mine))}")
    own_groups = [list(group.named) for group in optimizer.param_groups]
    require_same_parameters("its optimizer", [names for _, names in groups_of(facts)], own_groups)
    for parameter, names in optimizer.state_names().items():
        saved = names & {name.rpartition("/")[2] for name in arrays if name.rpartition("/")[0] == parameter}
        if saved and saved != names:
            raise ValueError(
                f"its optimizer has {', '.join(sorted(saved))} of {parameter}, expected {', '.join(sorted(names))}"
            )
    if unknown := {name.rpartition("/")[0] for name in arrays} - optimizer.parameters.keys():
        raise ValueError(f"its optimizer has state of {', '.join(sorted(unknown))}, which this one does not update")


def in_layout(array: np.ndarray[Any, Any], order: Sequence[int] | None) -> np.ndarray[Any, Any]:
    """The array, copied so that its axes vary in memory in this order, from the slowest to the fastest."""
    if order is None or len(order) != array.ndim:
        return array
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def with_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by names that begin with ``prefix/``."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays whose names begin with ``prefix/``, by the rest of their names."""
    return {name.removeprefix(f"{prefix}/"): a for name, a in arrays.items() if name.startswith(f"{prefix}/")}
