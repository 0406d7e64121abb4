"""`first_difference`: the first layer and array in which two copies of a model differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backends import to_host
from ..common import checks
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved, watched
from .compare import Host, compare, same_bits
from .host_inputs import host_input
from .tolerances import Bound


@dataclass(frozen=True)
class Difference:
    """The first array in which two models differ.

    Attributes
    ----------
    layer : str
        Full name of the layer in the model; empty for the model itself.
    call : str
        The layer's constructor call.
    what : str
        ``"output"``, ``"input gradient"`` or ``"gradient of NAME"``.
    ulps : float
        Largest difference, in units in the last place of the array's largest value; infinite for NaN against a number,
        or arrays of different dtype or shape.
    index : tuple of int
        Where it is.
    a, b : str
        The values of the two models there, or the dtypes and shapes of the arrays.
    """

    layer: str
    call: str
    what: str
    ulps: float
    index: tuple[int, ...]
    a: str
    b: str

    def __str__(self) -> str:
        where = f"layer {self.layer}, {self.call}" if self.layer else self.call
        return f"{where}: {self.what} differs by {self.ulps:.3g} ULP at {self.index}: {self.a} and {self.b}"


@dataclass(frozen=True)
class _Recorded:
    """An array that a layer computed; ``scale`` is the least value to which differences are relative."""

    layer: str
    call: str
    what: str
    array: Host
    scale: float = 0.0


def first_difference(model_a: Layer, model_b: Layer, x: Any, dy: Any = None, *, ulps: float = 0.0) -> Difference | None:
    """Pass one input and one upstream gradient through two copies of a model, and name the first array that differs.

    The outputs of all layers are compared first, then, in the order of backward, the gradients of each layer's
    parameters and input. Both models are unchanged afterwards: gradients, buffers, modes and the positions of their
    random streams.

    Parameters
    ----------
    model_a, model_b : Layer
        With the same layers, on any backends; the weights should be the same.
    x : array_like
        Host input.
    dy : array_like, optional
        Host upstream gradient; without it, or in evaluation outside of `enable_grad`, only outputs are compared.
    ulps : float
        The largest difference that is ignored, in units in the last place of the largest value of the array, or, for a
        parameter's gradient, of the layer's gradients. With 0 the bits are compared; all NaN are equal.

    Returns
    -------
    Difference or None
        None if nothing differs.

    Raises
    ------
    ValueError
        For models of different layers.
    """
    ulps = checks.number("ulps", ulps, least=0, infinite=True)
    names = [[(name, repr(layer)) for name, layer in model.named_layers()] for model in (model_a, model_b)]
    if names[0] != names[1]:
        odd = next((pair for pair in zip(*names, strict=False) if pair[0] != pair[1]), (names[0][-1], names[1][-1]))
        raise ValueError(f"first_difference: the models must have the same layers, got {odd[0]} and {odd[1]}")
    for one, other in zip(_trace(model_a, x, dy), _trace(model_b, x, dy), strict=True):
        found = _differ(one, other, ulps)
        if found is not None:
            return found
    return None


def _differ(one: _Recorded, other: _Recorded, ulps: float) -> Difference | None:
    a, b = one.array, other.array
    difference = partial(Difference, one.layer, one.call, one.what)
    if a.shape != b.shape or a.dtype != b.dtype:
        return difference(float("inf"), (), f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}")
    if same_bits(a, b):
        return None
    if a.dtype.kind != "f":
        index = tuple(int(i) for i in np.argwhere(a != b)[0])
        return difference(float("inf"), index, str(a[index]), str(b[index]))
    found = compare(a, b, Bound(1.0), floor=one.scale)
    return difference(found.ulps, found.index, found.got, found.wanted) if found.ulps > ulps or not ulps else None


def _trace(model: Layer, x: Any, dy: Any) -> Sequence[_Recorded]:
    """The outputs and gradients of all layers, in the order in which they are computed."""
    b, x = model.backend, host_input(model, x)
    recorded: list[_Recorded] = []
    with preserved(model), watched(model, partial(_record_output, recorded), partial(_record_gradients, recorded)):
        model.forward(b.asarray(x))
        if dy is not None and model.grad_enabled:
            model.backward(b.asarray(np.asarray(to_host(dy)), b.dtype))
    return recorded


def _record_output(recorded: list[_Recorded], name: str, layer: Layer, y: Any) -> None:
    for array in y if isinstance(y, tuple) else (y,):
        recorded.append(_Recorded(name, repr(layer), "output", to_host(array)))


def _record_gradients(recorded: list[_Recorded], name: str, layer: Layer, dx: Any) -> None:
    gradients = {key: to_host(p.grad) for key, p in layer.parameters.items() if p.grad is not None}
    # The gradient of a bias before a batch norm is a sum in which all cancels; its errors are of the size of the
    # others.
    scale = max((float(np.abs(g).max(initial=0.0, where=np.isfinite(g))) for g in gradients.values()), default=0.0)
    for key, gradient in gradients.items():
        recorded.append(_Recorded(name, repr(layer), f"gradient of {key}", gradient, scale))
    for gradient in dx if isinstance(dx, tuple) else (dx,):
        if gradient is not None:
            recorded.append(_Recorded(name, repr(layer), "input gradient", to_host(gradient)))
