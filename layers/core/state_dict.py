"""The parameters and buffers of a model as a mapping from full names to arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

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

    def named_places(self) -> Iterator[tuple[str, HasState]]:
        """This layer and all layers within, each with all its full names."""


#: Full name to the layer that has the array, and the array's name there.
Places: TypeAlias = Mapping[str, tuple[HasState, str]]


#: Buffers that a state may lack, which then stay as they are: files of other libraries, and old ones of PyTorch, have
#: batch norm without a count of batches.
OPTIONAL = frozenset({"num_batches_tracked"})


class LoadedKeys(NamedTuple):
    """Names in which a state that was loaded and the model differ."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def state_of(model: HasState) -> dict[str, Array]:
    """`Layer.state_dict`."""
    state = {}
    for path, layer in model.named_places():
        state.update({full_name(path, name): parameter.value for name, parameter in layer.parameters.items()})
        state.update({full_name(path, name): array for name, array in layer.buffers.items()})
    return state


def host_state(model: HasState) -> dict[str, Any]:
    """`Layer.state_dict` as arrays on the host, of which one with several names is one array."""
    state = state_of(model)
    hosts = {key: to_host(array) for key, array in {id(array): array for array in state.values()}.items()}
    return {name: hosts[id(array)] for name, array in state.items()}


def load_state(model: HasState, state: Mapping[str, Any], strict: bool) -> LoadedKeys:
    """`Layer.load_state_dict`: check everything first, then replace everything."""
    checks.mapping("state", state, "give what state_dict() returned, or the contents of a file")
    checks.flag("strict", strict)
    places = _places(model)
    others = _other_names(places)
    # An array in several places may be given under one of its names.
    given: dict[str, str] = {}
    for name in places:
        if name in state:
            given.setdefault(others.get(name, name), name)
    keys = LoadedKeys(
        missing_keys=[
            name for name, (_, key) in places.items() if others.get(name, name) not in given and key not in OPTIONAL
        ],
        unexpected_keys=[name for name in state if name not in places],
    )
    found = {name: place for name, place in places.items() if name in state}
    hosts = {name: _host(state[name], name) for name in found}
    problems = [*_problems(found, hosts), *_shared_but_different(hosts, others, given)]
    if strict:
        problems = [*_differences(keys, places), *problems]
    if problems:
        raise ValueError(f"{type(model).__name__}.load_state_dict: {'; '.join(problems)}")
    loaded = {name: moved(hosts[given[name]], layer.backend) for name, (layer, _) in places.items() if name in given}
    for name, array in loaded.items():
        layer, key = places[name]
        if key in layer.parameters:
            layer.parameters[key].value = array
        else:
            layer.buffers[key] = array
    return keys


def _places(model: HasState) -> dict[str, tuple[HasState, str]]:
    places: dict[str, tuple[HasState, str]] = {}
    for path, layer in model.named_places():
        places.update({full_name(path, name): (layer, name) for name in (*layer.parameters, *layer.buffers)})
    return places


def _other_names(places: Places) -> dict[str, str]:
    """For each name but the first of an array in several places, the first one."""
    first: dict[Hashable, str] = {}
    found = {}
    for name, (layer, key) in places.items():
        # A buffer is in several places if its layer is.
        array: Hashable = layer.parameters[key] if key in layer.parameters else (id(layer), key)
        known = first.setdefault(array, name)
        if known != name:
            found[name] = known
    return found


def _host(array: Any, name: str) -> Any:
    """A NumPy array of an array of any backend; float16 as float32, which has all its numbers."""
    host = to_host(array, name)
    return host.astype("float32") if host.dtype.name == "float16" else host


def _differences(keys: LoadedKeys, places: Places) -> Iterator[str]:
    """What is missing and unknown, and what to do if all names of the model have something in front."""
    yield from (f"missing {name}" for name in keys.missing_keys)
    yield from (f"unknown {name}" for name in keys.unexpected_keys)
    if prefix := _prefix(keys, places):
        yield f"the state has {prefix!r} in front of the model's names: nn.load(model, path, prefix={prefix!r})"


def _prefix(keys: LoadedKeys, places: Places) -> str:
    """What the state has in front of every name of the model, or an empty text."""
    names = [name for name, (_, key) in places.items() if key not in OPTIONAL]
    if names != keys.missing_keys:
        return ""
    unexpected = set(keys.unexpected_keys)
    for name in keys.unexpected_keys:
        if name.endswith(names[-1]):
            prefix = name.removesuffix(names[-1])
            if all(prefix + each in unexpected for each in names):
                return prefix
    return ""


def _problems(places: Places, hosts: Mapping[str, Any]) -> Iterator[str]:
    """Wrong shapes and wrong kinds of dtype."""
    for name, (layer, key) in places.items():
        expected = layer.parameters[key].shape if key in layer.parameters else layer.buffers.shape(key)
        if hosts[name].shape != expected:
            yield f"{name} has shape {hosts[name].shape}, expected {expected}"
        floats = key in layer.parameters or layer.buffers.holds_floats(key)
        if (hosts[name].dtype.name in FLOATS) != floats:
            kind = " or ".join(FLOATS) if floats else "integers"
            yield f"{name} holds {hosts[name].dtype.name}, expected {kind}"


def _shared_but_different(
    hosts: Mapping[str, Any], others: Mapping[str, str], given: Mapping[str, str]
) -> Iterator[str]:
    """Different arrays for one that is in several places, and has a name in each."""
    for name, first in others.items():
        if name not in hosts:
            continue
        known = given[first]
        # As bytes, so that NaN equals NaN.
        if known != name and hosts[known].tobytes() != hosts[name].tobytes():
            yield f"{known} and {name} are one parameter, but differ"
