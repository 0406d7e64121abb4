"""Where do two copies of a model part ways?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backends import to_host
from ..common import checks
from ..common.types import Array
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved, watched
from .compare import Host, compare, same_bits
from .tolerances import Bound


@dataclass(frozen=True)
class Difference:
    """The first array in which two models differ.

    Attributes
    ----------
    layer : str
        Full name of the layer in the model; empty for the model itself.
    call : str
        What makes that layer.
    what : str
        ``"output"``, ``"input gradient"`` or ``"gradient of NAME"``.
    ulps : float
        Largest difference, in units in the last place of the array's largest value; infinite for NaN against a number,
        or arrays of different form.
    index : tuple of int
        Where it is.
    a, b : str
        What the two models have there, or the forms of the arrays.
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
class _Seen:
    """An array that a layer gave."""

    layer: str
    call: str
    what: str
    array: Host
    scale: float = 0.0


def first_difference(model_a: Layer, model_b: Layer, x: Any, dy: Any = None, *, ulps: float = 0.0) -> Difference | None:
    """Pass one input and one upstream gradient through two copies of a model, and name the first array that differs.

    Forward comes first, layer by layer, then backward: of each layer its parameters' gradients and its input's. Both
    models are left as they were: gradients, buffers, modes and the positions of their random streams.

    Parameters
    ----------
    model_a, model_b : Layer
        Of the same layers, on any backends; the weights should be the same.
    x : array_like
        Host input.
    dy : array_like, optional
        Host upstream gradient; without it, or in evaluation, only outputs are compared.
    ulps : float
        Smaller differences don't count, in units in the last place of the largest value of the array, or, for a
        parameter's gradient, of the layer's gradients. With 0 the bits are
        compared; one NaN is as good as another.

    Returns
    -------
    Difference or None
        None where nothing differs.

    Raises
    ------
    ValueError
        For models of different layers.
    """
    ulps = checks.number("ulps", ulps, least=0, infinite=True)
    names = [[(name, repr(layer)) for name, layer in model.named_layers()] for model in (model_a, model_b)]
    if names[0] != names[1]:
        odd = next((pair for pair in zip(*names, strict=False) if pair[0] != pair[1]), (names[0][-1], names[1][-1]))
        raise ValueError(f"first_difference needs two copies of one model; {odd[0]} and {odd[1]} are not the same")
    for one, other in zip(_trace(model_a, x, dy), _trace(model_b, x, dy), strict=True):
        found = _differ(one, other, ulps)
        if found is not None:
            return found
    return None


def _differ(one: _Seen, other: _Seen, ulps: float) -> Difference | None:
    a, b = one.array, other.array
    told = partial(Difference, one.layer, one.call, one.what)
    if a.shape != b.shape or a.dtype != b.dtype:
        return told(float("inf"), (), f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}")
    if same_bits(a, b):
        return None
    if a.dtype.kind != "f":
        index = tuple(int(i) for i in np.argwhere(a != b)[0])
        return told(float("inf"), index, str(a[index]), str(b[index]))
    found = compare(a, b, Bound(1.0), floor=one.scale)
    return told(found.ulps, found.index, found.got, found.wanted) if found.ulps > ulps or not ulps else None


def _trace(model: Layer, x: Any, dy: Any) -> Sequence[_Seen]:
    """What each layer gives for an input and an upstream gradient, in the order in which it is computed."""
    b = model.backend
    seen: list[_Seen] = []
    with preserved(model), watched(model, partial(_see_output, seen), partial(_see_gradients, seen)):
        model.forward(b.asarray(np.asarray(to_host(x)), b.dtype))
        if dy is not None and model.training:
            model.backward(b.asarray(np.asarray(to_host(dy)), b.dtype))
    return seen


def _see_output(seen: list[_Seen], name: str, layer: Layer, y: Any) -> None:
    for array in y if isinstance(y, tuple) else (y,):
        seen.append(_Seen(name, repr(layer), "output", to_host(array)))


def _see_gradients(seen: list[_Seen], name: str, layer: Layer, dx: Array | None) -> None:
    gradients = {key: to_host(p.grad) for key, p in layer.parameters.items() if p.grad is not None}
    # In front of a batch norm a bias has a gradient in which all cancels: what counts is the size of the others.
    scale = max((float(np.abs(g).max(initial=0.0, where=np.isfinite(g))) for g in gradients.values()), default=0.0)
    for key, gradient in gradients.items():
        seen.append(_Seen(name, repr(layer), f"gradient of {key}", gradient, scale))
    if dx is not None:
        seen.append(_Seen(name, repr(layer), "input gradient", to_host(dx)))
