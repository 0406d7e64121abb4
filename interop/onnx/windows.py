"""Operators for layers with windows: convolutions and pools.

Sizes are known, all but that of the batch, so padding is written in cells. What PyTorch and ONNX define differently,
windows beyond the end of the input and what an average counts, becomes padding of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any, TypeAlias

from ...layers.core.output_shape import Shape
from ...layers.pool.adaptive_bins import bins, output_sizes
from ...layers.pool.geometry import pool_geometry_of_shape
from ...layers.windows.geometry import Geometry, resolve_padding
from .writer import Unsupported, Writer

#: Cells before and after each axis.
PadWidths: TypeAlias = tuple[tuple[int, int], ...]
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
    (x,), spatial = inputs, shapes[0][2:]
    kernel, stride, dilation = (per_axis(n, len(spatial)) for n in (layer.kernel_size, layer.stride, layer.dilation))
    pairs = resolve_padding(layer.padding, spatial, kernel, stride, dilation)
    if layer.padding_mode != "zeros":
        x, pairs = padded(w, x, pairs, layer.padding_mode), ((0, 0),) * len(spatial)
    return str(
        w.add(
            "Conv",
            x,
            *_weights(w, layer, folded),
            kernel_shape=kernel,
            strides=stride,
            dilations=dilation,
            group=layer.groups,
            pads=flat(pairs),
        )
    )


def conv_transpose(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape], folded: Any = None) -> str:
    """A transposed convolution, whose weight and bias ``folded`` replaces."""
    spatial = shapes[0][2:]
    kernel, stride, dilation, extra = (
        per_axis(n, len(spatial)) for n in (layer.kernel_size, layer.stride, layer.dilation, layer.output_padding)
    )
    pairs = resolve_padding(layer.padding, spatial, kernel, stride, dilation)
    return str(
        w.add(
            "ConvTranspose",
            *inputs,
            *_weights(w, layer, folded),
            kernel_shape=kernel,
            strides=stride,
            dilations=dilation,
            group=layer.groups,
            pads=flat(pairs),
            output_padding=extra,
        )
    )


def _weights(w: Writer, layer: Any, folded: Any) -> list[str]:
    weight, bias = folded or (None, None)
    names = [w.weight(layer, "weight", weight)]
    return [*names, w.weight(layer, "bias", bias)] if layer.bias or folded else names


def _geometry(layer: Any, shape: Shape) -> tuple[Geometry, PadWidths]:
    """The windows of a pool, and the cells beyond the padded input that the last ones reach."""
    geometry = pool_geometry_of_shape(
        shape, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    )
    windows = geometry.windows
    beyond = []
    for axis, n in enumerate(shape[2:]):
        before, after = geometry.padding[axis]
        extent = windows.dilation[axis] * (windows.kernel[axis] - 1) + 1
        end = (windows.count[axis] - 1) * windows.stride[axis] + extent
        beyond.append((0, max(0, end - (before + n + after))))
    return geometry, tuple(beyond)


def _attributes(w: Writer, geometry: Geometry, dilated_since: int) -> dict[str, Any]:
    windows = geometry.windows
    found: dict[str, Any] = {"kernel_shape": windows.kernel, "strides": windows.stride}
    if any(d > 1 for d in windows.dilation):
        w.need(dilated_since)
        found["dilations"] = windows.dilation
    return found


def _sum(*pairs: PadWidths) -> PadWidths:
    return tuple((sum(p[0] for p in axis), sum(p[1] for p in axis)) for axis in zip(*pairs, strict=True))


def max_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The maxima of windows, of an input that is padded with minus infinity."""
    if layer.return_indices:
        raise Unsupported("return_indices=True")
    geometry, beyond = _geometry(layer, shapes[0])
    attributes = _attributes(w, geometry, 11)
    if _is_simple(geometry, beyond):
        return str(w.add("MaxPool", inputs[0], pads=flat(geometry.padding), **attributes))
    x = padded(w, inputs[0], _sum(geometry.padding, beyond), value=-inf)
    return str(w.add("MaxPool", x, **attributes))


def _is_simple(geometry: Geometry, beyond: PadWidths) -> bool:
    """Whether windows end in the padded input, and padding is below a window, as runtimes require."""
    pairs = zip(geometry.padding, geometry.windows.kernel, strict=True)
    return not any(map(any, beyond)) and all(max(pair) < k for pair, k in pairs)


def avg_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The averages of windows, which count padding or not, and never what is beyond it."""
    geometry, beyond = _geometry(layer, shapes[0])
    attributes, cells = _attributes(w, geometry, 19), geometry.windows.cells
    if layer.divisor_override is None and _is_simple(geometry, beyond):
        counts = int(layer.count_include_pad)
        return str(w.add("AveragePool", *inputs, pads=flat(geometry.padding), count_include_pad=counts, **attributes))
    if layer.divisor_override is not None:
        x = padded(w, inputs[0], _sum(geometry.padding, beyond))
        y = w.add("AveragePool", x, **attributes)
        return str(w.add("Mul", y, w.constant(cells / layer.divisor_override, "factor")))
    if not layer.count_include_pad and any(map(any, _sum(geometry.padding, beyond))):
        return _average_of_present(w, inputs[0], _sum(geometry.padding, beyond), shapes[0], attributes)
    x = padded(w, inputs[0], geometry.padding)
    if not any(map(any, beyond)):
        return str(w.add("AveragePool", x, **attributes))
    shape = (*shapes[0][:2], *(n + sum(p) for n, p in zip(shapes[0][2:], geometry.padding, strict=True)))
    return _average_of_present(w, x, beyond, shape, attributes)


def _average_of_present(w: Writer, x: str, pairs: PadWidths, shape: Shape, attributes: dict[str, Any]) -> str:
    """The averages of what windows have of an input: average with zeros around, divided by that of ones."""
    ones = w.constant([[_ones(shape[2:])]], "ones")
    share = w.add("AveragePool", padded(w, ones, pairs), **attributes)
    return str(w.add("Div", w.add("AveragePool", padded(w, x, pairs), **attributes), share))


def _ones(sizes: Sequence[int]) -> Any:
    return [_ones(sizes[1:]) for _ in range(sizes[0])] if sizes else 1.0


def lp_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The norm of windows, of an input that is padded with zeros."""
    geometry, beyond = _geometry(layer, shapes[0])
    p, cells = float(layer.norm_type), geometry.windows.cells
    if p.is_integer() and _is_simple(geometry, beyond) and w.dtype == "float32":
        attributes = _attributes(w, geometry, 18)
        return str(w.add("LpPool", *inputs, p=int(p), pads=flat(geometry.padding), **attributes))
    x = w.add("Pow", w.add("Abs", inputs[0]), w.constant(p, "power"))
    x = padded(w, str(x), _sum(geometry.padding, beyond))
    y = w.add("AveragePool", x, **_attributes(w, geometry, 19))
    y = w.add("Mul", y, w.constant(float(cells), "cells"))
    return str(w.add("Pow", y, w.constant(1.0 / p, "root")))


def global_lp_pool(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The norm of each plane."""
    p = float(layer.norm_type)
    if p.is_integer() and w.dtype == "float32":
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
    axes, found = w.integers([axis], "axes"), []
    for part in parts:
        cells = w.add("Slice", x, w.integers([part.start], "start"), w.integers([part.stop], "stop"), axes)
        if kind == "Max":
            w.need(18)
        found.append(w.add(f"Reduce{kind}", cells, axes, keepdims=1))
    return str(w.add("Concat", *found, axis=axis)) if len(found) > 1 else str(found[0])
