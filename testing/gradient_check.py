"""`gradcheck`: compare a layer's backward with differences of its forward."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Backend
from ..common import checks
from ..common.types import Array
from ..layers.core.grad_mode import enable_grad
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved
from .host_inputs import host_input


def gradcheck(layer: Layer, x: Any, *, step: float = 1e-6, tolerance: float = 1e-6, seed: int = 0) -> None:
    """Compare `Layer.backward` with central differences in float64, for the input and every parameter not frozen.

    The differentiated function is ``sum(weights * layer(x))`` with fixed random weights, so all entries of the output
    count. ``x`` should not be near kinks (0 for ReLU, ties for max-pooling).

    Parameters
    ----------
    layer : Layer
        On a backend with float64: ``layer.to(nn.get_backend("numpy", "float64"))``; in training or evaluation, with its
        modes. It is unchanged afterwards.
    x : array_like
        Host input. Integers stay integers if the layer accepts them, as `Embedding` does; they have no gradient.
    step : float
        Half the distance of the two points of a difference.
    tolerance : float
        Largest error allowed, relative to the largest entry of the gradient (at least 1). The truncation error of a
        central difference is proportional to ``step**2``, its rounding error to ``2**-53 / step``.
    seed : int
        Seed of the weights.

    Raises
    ------
    AssertionError
        Naming the input or parameter and the index where the two differ most.
    TypeError
        If the layer is not in float64.
    """
    step, tolerance = checks.number("step", step, above=0), checks.number("tolerance", tolerance, least=0)
    b, seed = layer.backend, checks.seed("seed", seed)
    if b.dtype_name != "float64":
        raise TypeError(
            f"gradcheck: the layer must be in float64, got {b.dtype_name}; convert it with "
            f"layer.to({b.spec!r}, 'float64')"
        )
    x = host_input(layer, x)
    with preserved(layer), enable_grad():
        y = layer.forward(b.asarray(x))
        weights = np.random.default_rng(seed).standard_normal(tuple(y.shape))
        dx = layer.backward(b.asarray(weights))
        found = {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.requires_grad}

        def objective(host: np.ndarray[Any, Any]) -> float:
            return float(np.sum(weights * b.to_numpy(layer.forward(b.asarray(host)))))

        _compare_all(layer, b, x, objective, dx, found, step, tolerance)


def _compare_all(
    layer: Layer,
    b: Backend,
    x: np.ndarray[Any, Any],
    objective: Callable[[np.ndarray[Any, Any]], float],
    dx: Array,
    found: dict[str, Array | None],
    step: float,
    tolerance: float,
) -> None:
    """Compare each gradient with differences, the input's first."""
    if x.dtype.kind == "f":
        _compare("input", b, dx, _differences(objective, x, step), tolerance)
    for name, parameter in layer.named_parameters():
        if name not in found:
            continue
        original = parameter.value

        def moved(host: np.ndarray[Any, Any], parameter: Any = parameter) -> float:
            parameter.value = b.asarray(host)
            return objective(x)

        try:
            numeric = _differences(moved, np.array(b.to_numpy(original)), step)
        finally:
            parameter.value = original
        _compare(name, b, found[name], numeric, tolerance)


def _differences(objective: Any, at: np.ndarray[Any, Any], step: float) -> np.ndarray[Any, Any]:
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (objective(ahead) - objective(behind)) / (2 * step)
    return gradient


def _compare(name: str, b: Backend, gradient: Array | None, numeric: np.ndarray[Any, Any], tolerance: float) -> None:
    if gradient is None:
        raise AssertionError(f"gradient of {name}: backward returns none")
    backward = b.to_numpy(gradient)
    if backward.shape != numeric.shape:
        raise AssertionError(f"gradient of {name}: backward returns shape {backward.shape}, expected {numeric.shape}")
    error = np.abs(backward - numeric)
    scale = max(1.0, float(np.max(np.abs(numeric), initial=0.0)))
    if error.size and not float(error.max()) <= tolerance * scale:
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
        raise AssertionError(
            f"gradient of {name} at {index}: backward returns {backward[index]:.9g}, differences {numeric[index]:.9g}"
        )
