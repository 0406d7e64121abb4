"""The parameters and buffers of a model as a mapping from full names to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    def named_layers(self) -> Iterator[tuple[str, HasState]]:
        """This layer and all layers within, each with its full name."""


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
    for path, layer in model.named_layers():
        state.update({full_name(path, name): parameter.value for name, parameter in layer.parameters.items()})
        state.update({full_name(path, name): array for name, array in layer.buffers.items()})
    return state


def load_state(model: HasState, state: Mapping[str, Any], strict: bool) -> LoadedKeys:
    """`Layer.load_state_dict`: check everything first, then replace everything."""
    checks.mapping("state", state, "give what state_dict() returned, or the contents of a file")
    checks.flag("strict", strict)
    places: dict[str, tuple[HasState, str]] = {}
    for path, layer in model.named_layers():
        places.update({full_name(path, name): (layer, name) for name in (*layer.parameters, *layer.buffers)})
    keys = LoadedKeys(
        missing_keys=[name for name, (_, key) in places.items() if name not in state and key not in OPTIONAL],
        unexpected_keys=[name for name in state if name not in places],
    )
    found = {name: place for name, place in places.items() if name in state}
    hosts = {name: _host(state[name], name) for name in found}
    problems = [*_problems(found, hosts), *_shared_but_different(found, hosts)]
    if strict:
        problems = [*_differences(keys, places), *problems]
    if problems:
        raise ValueError(f"{type(model).__name__}.load_state_dict: {'; '.join(problems)}")
    loaded = {name: moved(hosts[name], layer.backend) for name, (layer, _) in found.items()}
    for name, (layer, key) in found.items():
        if key in layer.parameters:
            layer.parameters[key].value = loaded[name]
        else:
            layer.buffers[key] = loaded[name]
    return keys


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


def _shared_but_different(places: Places, hosts: Mapping[str, Any]) -> Iterator[str]:
    """Different arrays for a parameter that several layers share, which has a name in each."""
    first: dict[Parameter, str] = {}
    for name, (layer, key) in places.items():
        if key not in layer.parameters:
            continue
        other = first.setdefault(layer.parameters[key], name)
        # As bytes, so that NaN equals NaN.
        if other != name and hosts[other].tobytes() != hosts[name].tobytes():
            yield f"{other} and {name} are one parameter, but differ"
