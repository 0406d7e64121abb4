"""The state of a layer that changes from step to step, as `Backend.compile` needs it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ...backends import Generator
from ...backends.recording.slots import Slot
from .errors import full_name
from .grad_mode import grad_mode


def slots_of(model: Any) -> Iterator[Slot]:
    """`xpnn.layers.core.layer_state.LayerState.slots`."""
    kind, layers = type(model).__name__, [layer for _, layer in model.named_layers()]
    parameters = [parameter for _, parameter in model.named_parameters()]
    yield Slot.constant(f"{kind}.backend", model, "backend", lambda: tuple([layer.backend for layer in layers]))
    yield Slot.constant(
        f"{kind}'s requires_grad", model, "grads", lambda: tuple([each._requires_grad for each in parameters])
    )
    yield Slot.constant(f"{kind}'s grad mode", model, "grad mode", grad_mode)
    for path, layer in model.named_layers():
        yield from _own_slots(layer, path or type(layer).__name__)


def _own_slots(layer: Any, path: str) -> Iterator[Slot]:
    """The slots of a layer without those of the layers within."""
    for name, parameter in layer.parameters.items():
        yield from parameter.slots(full_name(path, name))
    for name in layer.buffers:
        own, adopt = partial(layer.buffers.own, name), partial(layer.buffers.adopt, name)
        yield Slot.item(full_name(path, name), layer.buffers, name, own, adopt)
    for name, value in vars(layer).items():
        if not name.startswith("_") and isinstance(value, bool | int | float | str):
            yield Slot.attribute(full_name(path, name), layer, name)
    if isinstance(getattr(layer, "stream", None), Generator):
        yield from _slots_of_stream(layer, path)


def _slots_of_stream(layer: Any, path: str) -> Iterator[Slot]:
    """Key and position of the layer's stream of random numbers, which the layer may replace by another one."""
    yield Slot(
        f"{path}.stream.key",
        (id(layer), "stream.key"),
        lambda: layer.stream.key,
        lambda value: setattr(layer.stream, "key", value),
    )
    yield Slot(
        f"{path}.stream.position",
        (id(layer), "stream.position"),
        lambda: layer.stream.position,
        lambda value: setattr(layer.stream, "position", value),
        lambda: layer.stream,
    )
