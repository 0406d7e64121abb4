"""The parameters and buffers of a model as a mapping from full names to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from ...backends import Backend, to_host
from ...backends.backend import FLOATS
from ...common import checks
from ...common.types import Array
from .buffers import Buffers
from .errors import full_name
from .parameter import Parameter
from .placement import moved


class HasState(Protocol):
    """What a state dict needs of a layer, which imports this module."""

    parameters: dict[str, Parameter]
    buffers: Buffers

    @property
    def backend(self) -> Backend:
        """Where the arrays are."""

    def named_layers(self) -> Iterator[tuple[str, HasState]]:
        """This layer and all layers within, each with its full name."""


#: Full name to the layer that has the array, and the array's name there.
Places: TypeAlias = Mapping[str, tuple[HasState, str]]


def state_of(model: HasState) -> dict[str, Array]:
    """`Layer.state_dict`."""
    state = {}
    for path, layer in model.named_layers():
        state.update({full_name(path, name): parameter.value for name, parameter in layer.parameters.items()})
        state.update({full_name(path, name): array for name, array in layer.buffers.items()})
    return state


def load_state(model: HasState, state: Mapping[str, Any]) -> None:
    """`Layer.load_state_dict`: check everything first, then replace everything."""
    checks.mapping("state", state, "give what state_dict() returned, or the contents of a file")
    places: dict[str, tuple[HasState, str]] = {}
    for path, layer in model.named_layers():
        places.update({full_name(path, name): (layer, name) for name in (*layer.parameters, *layer.buffers)})
    hosts = {name: to_host(array, name) for name, array in state.items()}
    problems = [*_problems(places, hosts), *_shared_but_different(places, hosts)]
    if problems:
        raise ValueError(f"{type(model).__name__}.load_state_dict: {'; '.join(problems)}")
    loaded = {name: moved(hosts[name], layer.backend) for name, (layer, _) in places.items()}
    for name, (layer, key) in places.items():
        if key in layer.parameters:
            layer.parameters[key].value = loaded[name]
        else:
            layer.buffers[key] = loaded[name]


def _problems(places: Places, hosts: Mapping[str, Any]) -> Iterator[str]:
    """Missing and unknown names, wrong shapes and wrong kinds of dtype."""
    yield from (f"missing {name}" for name in places if name not in hosts)
    yield from (f"unknown {name}" for name in hosts if name not in places)
    for name, (layer, key) in places.items():
        if name not in hosts:
            continue
        expected = layer.parameters[key].shape if key in layer.parameters else layer.buffers.shape(key)
        if hosts[name].shape != expected:
            yield f"{name} has shape {hosts[name].shape}, expected {expected}"
        floats = key in layer.parameters or layer.buffers.holds_floats(key)
        if (hosts[name].dtype.name in FLOATS) != floats:
            kind = " or ".join(FLOATS) if floats else "integers"
            yield f"{name} holds {hosts[name].dtype.name}, expected {kind}"


def _shared_but_different(places: Places, hosts: Mapping[str, Any]) -> Iterator[str]:
    """Different arrays for a parameter that several layers share, which has a name in each."""
    first: dict[Parameter, str] = {}
    for name, (layer, key) in places.items():
        if key not in layer.parameters or name not in hosts:
            continue
        other = first.setdefault(layer.parameters[key], name)
        # As bytes, so that NaN equals NaN.
        if other != name and hosts[other].tobytes() != hosts[name].tobytes():
            yield f"{other} and {name} are one parameter, but differ"
