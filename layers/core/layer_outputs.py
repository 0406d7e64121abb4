"""The outputs and input gradients of each layer of a model, in the order of computation.

`watched` calls a function after each layer's forward or backward, `preserved` restores a model afterwards, and
`layer_outputs` does both for one input.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from ...common.types import Array
from .layer import Layer
from .repeated_calls import separate_calls
from .snapshot import Snapshot

Callback: TypeAlias = Callable[[str, Layer, Any], None]
METHODS: tuple[str, ...] = ("forward", "backward")


@contextmanager
def watched(model: Layer, forward: Callback | None = None, backward: Callback | None = None) -> Iterator[None]:
    """Within the ``with`` block, call a function after each forward or backward of every layer, containers included.

    Parameters
    ----------
    model : Layer
        A container is reported after the layers within.
    forward : callable, optional
        Called with a layer's full name ("" for the model itself), the layer, and its output, which is a tuple if the
        layer returns several arrays.
    backward : callable, optional
        Called with name, layer and the input's gradient, or None, after the gradients of the layer's parameters were
        accumulated. An exception in a callback ends the forward or backward.
    """
    layers = list(model.named_layers())
    before = [{key: vars(layer)[key] for key in METHODS if key in vars(layer)} for _, layer in layers]
    for name, layer in layers:
        if forward is not None:
            vars(layer)["forward"] = partial(_forward, layer.forward, forward, name, layer)
        if backward is not None:
            vars(layer)["backward"] = partial(_backward, layer.backward, backward, name, layer)
    try:
        yield
    finally:
        for (_, layer), given in zip(layers, before, strict=True):
            for key in METHODS:
                vars(layer).pop(key, None)
            vars(layer).update(given)


def _forward(call: Callable[..., Any], callback: Callback, name: str, layer: Layer, x: Array) -> Any:
    y = call(x)
    callback(name, layer, y)
    return y


def _backward(
    call: Callable[..., Any], callback: Callback, name: str, layer: Layer, dy: Array, *, input_grad: bool = True
) -> Any:
    dx = call(dy, input_grad=input_grad)
    callback(name, layer, dx)
    return dx


@contextmanager
def preserved(model: Layer) -> Iterator[None]:
    """Restore at the end everything that forward and backward change in a model, after an error too.

    These are gradients, which are None at the start of the block, buffers, positions of random streams, modes, and
    what was saved for backward. The latter stays in memory during the block unless `Layer.release` is called before.
    """
    layers = [layer for _, layer in model.named_layers()]
    gradients = [(parameter, parameter.grad) for _, parameter in model.named_parameters()]
    saved_for_backward = [(layer, layer.training, layer.saved, layer._output) for layer in layers]
    state = Snapshot(model)
    model.zero_grad()
    try:
        with separate_calls(model):
            yield
    finally:
        state.restore()
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for layer, training, saved, output in saved_for_backward:
            layer.training, layer.saved, layer._output = training, saved, output


def layer_outputs(model: Layer, x: Array) -> list[tuple[str, Layer, Any]]:
    """Full name, layer and output of each layer for an input, in evaluation mode, in the order of computing.

    The model is left unchanged. All outputs are in memory at once; `watched` reports one after the other.

    Parameters
    ----------
    model : Layer
    x : array
        On the model's backend.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Dense(4, 8), nn.ReLU())
    >>> x = model.backend.asarray([[1.0, 2.0, 3.0, 4.0]])
    >>> [(name, tuple(y.shape)) for name, _, y in nn.layer_outputs(model, x)]
    [('0', (1, 8)), ('1', (1, 8)), ('', (1, 8))]
    """
    seen: list[tuple[str, Layer, Any]] = []
    with preserved(model):
        model.eval()
        with watched(model, forward=lambda name, layer, y: seen.append((name, layer, y))):
            model.forward(x)
    return seen
