"""Operators for activations: one, or the formula of the layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import pi, sqrt
from typing import Any, TypeAlias

from ...layers.core.output_shape import Shape
from .writer import Writer

#: Writes a layer: the writer, the layer, the names of its inputs and their shapes; returns the name of the output.
#: Those of convolutions and dense layers accept a weight and a bias in place of the layer's.
Write: TypeAlias = Callable[..., str]


def operator(name: str, *, opset: int = 1, attributes: Mapping[str, str] | None = None) -> Write:
    """An operator whose attributes are arguments of the layer, by ONNX's name: the layer's."""

    def write(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        w.need(opset)
        given = {theirs: getattr(layer, ours) for theirs, ours in (attributes or {}).items()}
        return str(w.add(name, *inputs, **given))

    return write


def in_float32(name: str, formula: Write, **attributes: str) -> Write:
    """An operator whose attributes are numbers in float32, as all of ONNX, so in float64 a formula."""
    write = operator(name, attributes=attributes)
    return lambda w, *others: (formula if w.dtype == "float64" else write)(w, *others)


def elu(scale: str | float, rate: str | float, slope: str | float) -> Write:
    """``slope x`` above 0, else ``scale (exp(x / rate) - 1)``."""

    def write(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        x, zero = inputs[0], w.constant(0.0, "zero")
        a, r, s = (getattr(layer, n) if isinstance(n, str) else n for n in (scale, rate, slope))
        below = w.add("Exp", w.add("Div", w.add("Min", x, zero), w.constant(r, "rate")))
        below = w.add("Mul", w.add("Sub", below, w.constant(1.0, "one")), w.constant(a, "scale"))
        return str(w.add("Where", w.add("Greater", x, zero), w.add("Mul", x, w.constant(s, "slope")), below))

    return write


def leaky_relu(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """A slope below 0."""
    return str(w.add("PRelu", inputs[0], w.constant(layer.negative_slope, "slope")))


def hard_sigmoid(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """A line between 0 and 1."""
    line = w.add("Mul", inputs[0], w.constant(getattr(layer, "alpha", 1.0 / 6.0), "alpha"))
    line = w.add("Add", line, w.constant(getattr(layer, "beta", 0.5), "beta"))
    return str(w.add("Clip", line, w.constant(0.0, "limit"), w.constant(1.0, "limit")))


def hard_swish(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """``x`` times its hard sigmoid."""
    return str(w.add("Mul", inputs[0], hard_sigmoid(w, layer, inputs, shapes)))


def prelu(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Slopes for channels, which are the axis after the batch."""
    slope, axes = w.weight(layer, "weight"), len(shapes[0]) - 2
    if layer.num_parameters > 1 and axes > 0:
        slope = w.add("Reshape", slope, w.integers([layer.num_parameters, *[1] * axes]))
    return str(w.add("PRelu", inputs[0], slope))


def silu(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """``x sigmoid(x)``."""
    return str(w.add("Mul", inputs[0], w.add("Sigmoid", inputs[0])))


def gelu(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The formula of either form, which older opsets have too."""
    x = inputs[0]
    if layer.approximate == "tanh":
        cube = w.add("Mul", w.add("Mul", x, x), x)
        inner = w.add("Add", x, w.add("Mul", cube, w.constant(0.044715, "cubic")))
        part = w.add("Tanh", w.add("Mul", inner, w.constant(sqrt(2.0 / pi), "factor")))
    else:
        part = w.add("Erf", w.add("Mul", x, w.constant(sqrt(0.5), "factor")))
    return str(w.add("Mul", w.add("Mul", w.add("Add", part, w.constant(1.0, "one")), x), w.constant(0.5, "half")))


def softplus(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """With a slope, and linear past the threshold."""
    x = inputs[0]
    if layer.beta == 1.0 and layer.threshold >= 20.0 and w.dtype == "float32":
        # The difference is below half a unit in the last place.
        return str(w.add("Softplus", x))
    scaled = x if layer.beta == 1.0 else w.add("Mul", x, w.constant(layer.beta, "beta"))
    y = w.add("Softplus", scaled)
    y = y if layer.beta == 1.0 else w.add("Mul", y, w.constant(1.0 / layer.beta, "inverse"))
    return str(w.add("Where", w.add("Greater", scaled, w.constant(layer.threshold, "threshold")), x, y))


def log_sigmoid(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """``-softplus(-x)``."""
    return str(w.add("Neg", w.add("Softplus", w.add("Neg", inputs[0]))))


def tanh_shrink(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """``x - tanh(x)``."""
    return str(w.add("Sub", inputs[0], w.add("Tanh", inputs[0])))


def shrink(moves: bool) -> Write:
    """0 near 0; with ``moves`` what is left is moved towards 0."""

    def formula(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        x, lambd = inputs[0], w.constant(layer.lambd, "lambd")
        left = w.add("Sub", x, w.add("Mul", w.add("Sign", x), lambd)) if moves else x
        return str(w.add("Where", w.add("Greater", w.add("Abs", x), lambd), left, w.constant(0.0, "zero")))

    return in_float32("Shrink", formula, lambd="lambd", **({"bias": "lambd"} if moves else {}))


def clip(low: str | float, high: str | float) -> Write:
    """Limits, which are numbers or arguments of the layer."""

    def write(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        limits = [getattr(layer, limit) if isinstance(limit, str) else limit for limit in (low, high)]
        if limits[0] is None and limits[1] is None:
            return inputs[0]
        names = ["" if limit is None else w.constant(limit, "limit") for limit in limits]
        return str(w.add("Clip", inputs[0], *(names if names[1] else names[:1])))

    return write


def threshold(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """A value where the input is not above the threshold."""
    if layer.value == 0.0 and w.dtype == "float32":
        return str(w.add("ThresholdedRelu", inputs[0], alpha=layer.threshold))
    above = w.add("Greater", inputs[0], w.constant(layer.threshold, "threshold"))
    return str(w.add("Where", above, inputs[0], w.constant(layer.value, "value")))


def softmin(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """``softmax(-x)``."""
    return str(w.add("Softmax", w.add("Neg", inputs[0]), axis=layer.axis))


def glu(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """One half times the sigmoid of the other."""
    half = shapes[0][layer.axis] // 2
    a, b = w.add("Split", inputs[0], w.integers([half, half], "split"), outputs=2, axis=layer.axis)
    return str(w.add("Mul", a, w.add("Sigmoid", b)))
