"""Operators for layers with windows: convolutions and pools.

Sizes are known, all but that of the batch, so padding is written in cells. What PyTorch and ONNX define differently,
windows beyond the end of the input and what an average counts, becomes padding of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, prod
from typing import Any

import numpy as np

from ...backends.contractions.windows import PadWidths, Windows
from ...layers.core.output_shape import Shape
from ...layers.pool.adaptive_bins import bins, output_sizes
from ...layers.pool.geometry import pool_geometry_of_shape
from ...layers.windows.geometry import resolve_padding
from ..unsupported import Unsupported
from .writer import Writer

#: The names of modes of padding in ONNX.
PAD_MODES = {"zeros": "constant", "constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def flat(pairs: PadWidths, lead: int = 0) -> list[int]:
    """Padding as ONNX lists it: before each axis, then after each; ``lead`` axes in front have none."""
    return [*[0] * lead, *(before for before, _ in pairs), *[0] * lead, *(after for _, after in pairs)]


def padded(w: Writer, x: str, pairs: PadWidths, mode: str = "constant", value: float = 0.0) -> str:
    """The spatial axes padded; the same value if there is nothing to add."""
    if not any(map(any, pairs)):
        return x
    name = PAD_MODES[mode]
    if name == "wrap":
        w.need(19)
    inputs = [x, w.integers(flat(pairs, 2), "pads")]
    if name == "constant":
        inputs.append(w.constant(value, "value"))
    return str(w.add("Pad", *inputs, mode=name))


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """A size for each axis."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * axes


def conv(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape], folded: Any = None) -> str:
    """A convolution, whose weight and bias ``folded`` replaces."""
    (x,), axes = inputs, len(shapes[0]) - 2
    attributes, pairs = _placed(layer, shapes[0])
    if layer.padding_mode != "zeros":
        x, pairs = padded(w, x, pairs, layer.padding_mode), ((0, 0),) * axes
    return str(w.add("Conv", x, *_weights(w, layer, folded), **attributes, pads=flat(pairs)))


def conv_transpose(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape], folded: Any = None) -> str:
    """A transposed convolution, whose weight and bias ``folded`` replaces."""
    x, (attributes, pairs) = inputs[0], _placed(layer, shapes[0])
    stride, extra = attributes["strides"], per_axis(layer.output_padding, len(pairs))
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        # More than runtimes accept, so less is cut off at the end, of an output that more cells of 0 make longer.
        cells = [ceil(max(0, e - after) / s) for e, s, (_, after) in zip(extra, stride, pairs, strict=True)]
        x = padded(w, x, tuple((0, n) for n in cells))
        ends = zip(pairs, cells, stride, extra, strict=True)
        pairs, extra = tuple((before, after + n * s - e) for (before, after), n, s, e in ends), ()
    weights = _weights(w, layer, folded)
    return str(w.add("ConvTranspose", x, *weights, **attributes, pads=flat(pairs), output_padding=extra or None))


def _placed(layer: Any, shape: Shape) -> tuple[dict[str, Any], PadWidths]:
    """Attributes that say which windows a convolution has, and its padding in cells."""
    spatial = shape[2:]
    kernel, stride, dilation = (per_axis(n, len(spatial)) for n in (layer.kernel_size, layer.stride, layer.dilation))
    attributes = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "group": layer.groups}
    return attributes, resolve_padding(layer.padding, spatial, kernel, stride, dilation)


def _weights(w: Writer, layer: Any, folded: Any) -> list[str]:
    weight, bias = folded or (None, None)
    names = [w.weight(layer, "weight", weight)]
    return [*names, w.weight(layer, "bias", bias)] if layer.bias or folded else names


def _geometry(layer: Any, shape: Shape) -> tuple[Windows, PadWidths, PadWidths]:
    """The windows of a pool, the padding that they reach, and the cells after it that the last ones reach."""
    geometry = pool_geometry_of_shape(
        shape, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    )
    windows, padding, beyond = geometry.windows, [], []
    for axis, n in enumerate(shape[2:]):
        before, after = geometry.padding[axis]
        end = (windows.count[axis] - 1) * windows.stride[axis] + windows.dilation[axis] * (windows.kernel[axis] - 1) + 1
        reached = max(0, end - before - n)
        padding.append((before, min(after, reached)))
        beyond.append((0, max(0, reached - after)))
    return windows, tuple(padding), tuple(beyond)


def _sum(*pairs: PadWidths) -> PadWidths:
    return tuple((sum(p[0] for p in axis), sum(p[1] for p in axis)) for axis in zip(*pairs, strict=True))


#: The first opset in which the operators of pools have dilations.
_DILATED = {"MaxPool": 11, "AveragePool": 19, "LpPool": 18}


def _pool(w: Writer, operator: str, x: str, windows: Windows, pairs: PadWidths, fill: float, **attributes: int) -> str:
    """A pool of an input with cells of ``fill`` around, which are the operator's own where it accepts as many.

    An average counts them unless told otherwise.
    """
    given: dict[str, Any] = {"kernel_shape": windows.kernel, "strides": windows.stride}
    if any(d > 1 for d in windows.dilation):
        w.need(_DILATED[operator])
        given["dilations"] = windows.dilation
    if any(map(any, pairs)) and not _is_narrow(windows, pairs):
        x = padded(w, x, pairs, value=fill)
    elif any(map(any, pairs)):
        counts = {"count_include_pad": 1} if operator == "AveragePool" else {}
        given |= {"pads": flat(pairs), **counts}
    return str(w.add(operator, x, **given | attributes))


def _is_narrow(windows: Windows, pairs: PadWidths) -> bool:
    """Whether operators accept the padding: less than the kernel."""
    return all(max(pair) < k for pair, k in zip(pairs, windows.kernel, strict=True))


def max_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The maxima of windows, of an input that is padded with minus infinity."""
    if layer.return_indices:
        raise Unsupported("return_indices=True")
    windows, padding, beyond = _geometry(layer, shapes[0])
    return _pool(w, "MaxPool", inputs[0], windows, _sum(padding, beyond), -inf)


def avg_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The averages of windows, which count padding or not, and never what is beyond it."""
    x, (windows, padding, beyond) = inputs[0], _geometry(layer, shapes[0])
    if layer.divisor_override is not None:
        y = _pool(w, "AveragePool", x, windows, _sum(padding, beyond), 0.0)
        return str(w.add("Mul", y, w.constant(windows.cells / layer.divisor_override, "factor")))
    if not layer.count_include_pad:
        return _average_of_present(w, x, windows, _sum(padding, beyond), shapes[0])
    if not any(map(any, beyond)):
        return _pool(w, "AveragePool", x, windows, padding, 0.0)
    shape = (*shapes[0][:2], *(n + sum(pair) for n, pair in zip(shapes[0][2:], padding, strict=True)))
    return _average_of_present(w, padded(w, x, padding), windows, beyond, shape)


def _average_of_present(w: Writer, x: str, windows: Windows, pairs: PadWidths, shape: Shape) -> str:
    """The averages of the cells of an input in each window, without those of the padding."""
    y = _pool(w, "AveragePool", x, windows, pairs, 0.0, count_include_pad=0)
    if _is_narrow(windows, pairs) or not any(map(any, pairs)):
        return y
    ones = w.constant(np.ones((1, 1, *shape[2:])), "ones")
    return str(w.add("Div", y, _pool(w, "AveragePool", ones, windows, pairs, 0.0)))


def lp_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The norm of windows, of an input that is padded with zeros."""
    windows, padding, beyond = _geometry(layer, shapes[0])
    p, pairs = float(layer.norm_type), _sum(padding, beyond)
    if p.is_integer() and w.dtype == "float32" and _is_narrow(windows, pairs):
        return _pool(w, "LpPool", inputs[0], windows, pairs, 0.0, p=int(p))
    x = w.add("Pow", w.add("Abs", inputs[0]), w.constant(p, "power"))
    y = _pool(w, "AveragePool", x, windows, pairs, 0.0)
    y = w.add("Mul", y, w.constant(float(windows.cells), "cells"))
    return str(w.add("Pow", y, w.constant(1.0 / p, "root")))


def global_lp_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The norm of each plane."""
    p = float(layer.norm_type)
    # Runtimes lack the operator in later opsets.
    if p.is_integer() and w.dtype == "float32" and w.opset < 22:
        return str(w.add("GlobalLpPool", *inputs, p=int(p)))
    axes = w.integers(list(range(2, len(shapes[0]))), "axes")
    y = w.add("ReduceSum", w.add("Pow", w.add("Abs", inputs[0]), w.constant(p, "power")), axes, keepdims=1)
    return str(w.add("Pow", y, w.constant(1.0 / p, "root")))


def adaptive(kind: str) -> Any:
    """Averages or maxima of bins, which are those of each axis in turn."""

    def write(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        x, sizes = inputs[0], output_sizes(shapes[0], layer.output_size)
        if prod(sizes) == 1:
            return str(w.add("GlobalAveragePool" if kind == "Mean" else "GlobalMaxPool", x))
        if not any(n % m for n, m in zip(shapes[0][2:], sizes, strict=True)):
            kernel = [n // m for n, m in zip(shapes[0][2:], sizes, strict=True)]
            name = "AveragePool" if kind == "Mean" else "MaxPool"
            return str(w.add(name, x, kernel_shape=kernel, strides=kernel)) if max(kernel) > 1 else x
        for axis, (n, m) in enumerate(zip(shapes[0][2:], sizes, strict=True), start=2):
            if n != m:
                x = _binned(w, x, axis, bins(n, m), kind)
        return x

    return write


def _binned(w: Writer, x: str, axis: int, parts: list[slice], kind: str) -> str:
    """An axis reduced to one cell for each bin."""
    w.need(18)
    axes, found = w.integers([axis], "axes"), []
    for part in parts:
        cells = w.add("Slice", x, w.integers([part.start], "start"), w.integers([part.stop], "stop"), axes)
        found.append(w.add(f"Reduce{kind}", cells, axes, keepdims=1))
    return str(w.add("Concat", *found, axis=axis)) if len(found) > 1 else str(found[0])
