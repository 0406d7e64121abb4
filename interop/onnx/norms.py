"""Operators for normalisation, in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...layers.core.output_shape import Shape
from .writer import Writer


def batch_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """With running statistics an operator, else that of the batch."""
    n = layer.num_features
    if "running_mean" not in layer.buffers:
        axes = [axis for axis in range(len(shapes[0])) if axis != 1]
        return _affine(w, layer, _standardised(w, inputs[0], axes, layer.eps), (n, *[1] * (len(shapes[0]) - 2)))
    statistics = [w.weight(layer, name) for name in ("running_mean", "running_var")]
    # Of training only: the share of the old value, which an average over all batches does not have.
    kept = None if layer.momentum is None else 1.0 - layer.momentum
    arrays = (*_scale_and_shift(w, layer, n), *statistics)
    return str(w.add("BatchNormalization", inputs[0], *arrays, epsilon=layer.eps, momentum=kept))


def instance_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """With running statistics that of a batch."""
    if "running_mean" in layer.buffers:
        return batch_norm(w, layer, inputs, shapes)
    scale = _scale_and_shift(w, layer, layer.num_features)
    return str(w.add("InstanceNormalization", inputs[0], *scale, epsilon=layer.eps))


def _scale_and_shift(w: Writer, layer: Any, n: int) -> list[str]:
    if "weight" in layer.parameters:
        return [w.weight(layer, "weight"), w.weight(layer, "bias")]
    return [w.constant(np.ones(n), "scale"), w.constant(np.zeros(n), "shift")]


def layer_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The last axes standardised."""
    count = len(layer.normalized_shape)
    if "weight" in layer.parameters:
        scale = [w.weight(layer, name) for name in ("weight", "bias") if name in layer.parameters]
    else:
        scale = [w.constant(np.ones(layer.normalized_shape), "scale")]
    return str(w.add("LayerNormalization", inputs[0], *scale, axis=-count, epsilon=layer.eps))


def group_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Groups of channels standardised, as instances of a wider input."""
    groups, shape = layer.num_groups, shapes[0]
    x = w.add("Reshape", inputs[0], w.integers([0, groups, prod(shape[1:]) // groups]))
    ones, zeros = w.constant(np.ones(groups), "scale"), w.constant(np.zeros(groups), "shift")
    x = w.add("InstanceNormalization", x, ones, zeros, epsilon=layer.eps)
    x = w.add("Reshape", x, w.integers([0, *shape[1:]]))
    return _affine(w, layer, x, (shape[1], *[1] * (len(shape) - 2)))


def rms_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The last axes divided by the root of their mean square."""
    eps = float(np.finfo(w.dtype).eps) if layer.eps is None else layer.eps
    axes = w.integers([-i for i in range(len(layer.normalized_shape), 0, -1)], "axes")
    w.need(18)
    square = w.add("ReduceMean", w.add("Mul", inputs[0], inputs[0]), axes, keepdims=1)
    x = w.add("Div", inputs[0], w.add("Sqrt", w.add("Add", square, w.constant(eps, "eps"))))
    return str(w.add("Mul", x, w.weight(layer, "weight"))) if "weight" in layer.parameters else str(x)


def local_response_norm(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Channels divided by a power of the mean square of their neighbours, more of them before than after."""
    x, shape, size = inputs[0], shapes[0], layer.size
    if size % 2 and w.dtype == "float32" and len(shape) == 4:
        # The operator has as many neighbours on both sides, or the odd one after; runtimes have it for images.
        return str(w.add("LRN", x, size=size, alpha=layer.alpha, beta=layer.beta, bias=layer.k))
    square = w.add("Reshape", w.add("Mul", x, x), w.integers([0, 1, shape[1], prod(shape[2:])]))
    pads = [0, 0, size // 2, 0, 0, 0, (size - 1) // 2, 0]
    square = w.add("Pad", square, w.integers(pads, "pads"), w.constant(0.0, "value"))
    mean = w.add("AveragePool", square, kernel_shape=(size, 1))
    mean = w.add("Reshape", mean, w.integers([0, *shape[1:]]))
    divisor = w.add("Add", w.add("Mul", mean, w.constant(layer.alpha, "alpha")), w.constant(layer.k, "k"))
    return str(w.add("Div", x, w.add("Pow", divisor, w.constant(layer.beta, "beta"))))


def _standardised(w: Writer, x: str, axes: Sequence[int], eps: float) -> str:
    w.need(18)
    names = w.integers(list(axes), "axes")
    centred = w.add("Sub", x, w.add("ReduceMean", x, names, keepdims=1))
    variance = w.add("ReduceMean", w.add("Mul", centred, centred), names, keepdims=1)
    return str(w.add("Div", centred, w.add("Sqrt", w.add("Add", variance, w.constant(eps, "eps")))))


def _affine(w: Writer, layer: Any, x: str, shape: Sequence[int]) -> str:
    """Times the weight plus the bias, which have that shape."""
    for operator, name in (("Mul", "weight"), ("Add", "bias")):
        if name in layer.parameters:
            value = w.weight(layer, name)
            if len(shape) > 1:
                value = w.add("Reshape", value, w.integers(list(shape)))
            x = w.add(operator, x, value)
    return x
