"""Operators that move, join or look up values, dense layers, and attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, sqrt
from typing import Any

import numpy as np

from ...layers.core.output_shape import Shape
from ...layers.reshaping.interpolation import Resized, terms
from .windows import padded
from .writer import Writer, rank


def reshaped(w: Writer, x: str, sample: Sequence[int]) -> str:
    """The samples in another shape, with any number of them."""
    return str(w.add("Reshape", x, w.integers([0, *sample])))


def dense(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape], folded: Any = None) -> str:
    """A product with the transposed weight, over the last axis of any array; ``folded`` replaces weight and bias."""
    weight, bias = folded or (None, None)
    name = w.weight(layer, "weight", weight)
    shift = [w.weight(layer, "bias", bias)] if layer.bias or folded else []
    if len(shapes[0]) == 2:
        return str(w.add("Gemm", *inputs, name, *shift, transB=1))
    y = w.add("MatMul", inputs[0], w.add("Transpose", name, perm=(1, 0)))
    return str(w.add("Add", y, *shift)) if shift else str(y)


def flatten(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Axes joined, all but the batch axis unless told otherwise."""
    sample = layer.output_shape(shapes[0])[1:]
    if layer.start_dim in (0, -len(shapes[0])):
        return str(w.add("Reshape", inputs[0], w.integers([-1, *sample])))
    if len(sample) == 1:
        return str(w.add("Flatten", inputs[0], axis=1))
    return reshaped(w, inputs[0], sample)


def reshape(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Another shape of a sample."""
    return reshaped(w, inputs[0], layer.output_shape(shapes[0])[1:])


def permute(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Another order of axes."""
    return str(w.add("Transpose", inputs[0], perm=(0, *layer.axes)))


def pad(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Cells around the spatial axes."""
    axes = rank(shapes[0])
    each = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,) * axes
    pairs = tuple(p if isinstance(p, tuple) else (p, p) for p in each)
    return padded(w, inputs[0], pairs, layer.mode, layer.value)


def pixel_shuffle(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Channels to space, in PyTorch's order."""
    return str(w.add("DepthToSpace", inputs[0], blocksize=layer.upscale_factor, mode="CRD"))


def pixel_unshuffle(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Space to channels in PyTorch's order, which is not that of the operator."""
    (_, channels, height, width), r = shapes[0], layer.downscale_factor
    x = reshaped(w, inputs[0], (channels, height // r, r, width // r, r))
    x = w.add("Transpose", x, perm=(0, 1, 3, 5, 2, 4))
    return reshaped(w, x, (channels * r * r, height // r, width // r))


def upsample(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Another size by the nearest cell or by interpolation.

    By the operator where rounding its scale in float32 leaves sizes and nearest cells as they are, else by the cells.
    """
    axes = layer._resized(shapes[0])
    scales, by_size = [_scale(axis) for axis in axes], layer.size is not None and w.opset >= 18
    # Where no size changes, runtimes copy the input whatever its scale.
    is_copied = all(axis.n == axis.m for axis in axes) and any(scale != 1.0 for scale in scales)
    if is_copied or (not by_size and None in scales) or not all(map(_has_same_cells, axes, scales)):
        x = inputs[0]
        for at, axis in enumerate(axes, start=2):
            x = x if axis.is_same else _interpolated(w, x, axis, at, len(axes) + 1 - at)
        return x
    given: dict[str, Any] = {"mode": "nearest" if layer.mode.startswith("nearest") else "linear"}
    if layer.mode == "nearest":
        given |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif layer.mode == "nearest-exact":
        given |= {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    else:
        given["coordinate_transformation_mode"] = "align_corners" if layer.align_corners else "half_pixel"
        if layer.mode == "bicubic":
            given |= {"mode": "cubic", "cubic_coeff_a": -0.75}
    if by_size:
        sizes = w.integers([axis.m for axis in axes])
        return str(w.add("Resize", inputs[0], "", "", sizes, axes=list(range(2, len(shapes[0]))), **given))
    return str(w.add("Resize", inputs[0], "", w.constant([1.0, 1.0, *scales], "scales", "float32"), **given))


def _scale(axis: Resized) -> float | None:
    """The number of float32 nearest to the scale factor by which the size becomes the right one; None if none does."""
    scale = np.float32(axis.m / axis.n if axis.scale is None or axis.is_same else axis.scale)
    for each in (scale, np.nextafter(scale, np.float32(np.inf)), np.nextafter(scale, np.float32(0.0))):
        if floor(float(each) * axis.n) == axis.m == floor(each * np.float32(axis.n)):
            return float(each)
    return None


def _has_same_cells(axis: Resized, scale: float | None) -> bool:
    """Whether the operator, which divides by its scale in float32, has the nearest cells of this axis."""
    if not axis.mode.startswith("nearest") or axis.is_same:
        return True
    half = np.float32(0.5 if axis.mode == "nearest-exact" else 0.0)
    places = (np.arange(axis.m, dtype=np.float32) + half) / np.float32(axis.m / axis.n if scale is None else scale)
    cells = np.floor(places - half + half).clip(0, axis.n - 1).astype(int).tolist()
    return bool(cells == [cell for ((cell, _),) in terms(axis)])


def _interpolated(w: Writer, x: str, axis: Resized, at: int, after: int) -> str:
    """The axis ``at``, with ``after`` axes after it, as the sum of its weighted cells."""
    found = ""
    for row in zip(*terms(axis), strict=True):
        value = w.add("Gather", x, w.integers([cell for cell, _ in row], "cells"), axis=at)
        if not axis.mode.startswith("nearest"):
            weights = np.reshape([weight for _, weight in row], (-1, *[1] * after))
            value = w.add("Mul", value, w.constant(weights, "weights"))
        found = w.add("Add", found, value) if found else value
    return found


def embedding(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Rows of the weight."""
    return str(w.add("Gather", w.weight(layer, "weight"), inputs[0], axis=0))


def position_embedding(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """A row of the weight for each position, added."""
    weight, length = w.weight(layer, "weight"), shapes[0][1]
    if length < layer.length:
        weight = w.add("Slice", weight, w.integers([0], "start"), w.integers([length], "stop"), w.integers([0], "axes"))
    return str(w.add("Add", inputs[0], weight))


def attention(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Self-attention of several heads, by its formula."""
    _, length, features = shapes[0]
    size = features // layer.num_heads
    joined = _projected(w, layer, inputs[0], "in_proj_")
    parts = w.add("Split", joined, w.integers([features] * 3, "split"), outputs=3, axis=2)
    heads = [reshaped(w, part, (length, layer.num_heads, size)) for part in parts]
    q, v = (w.add("Transpose", heads[i], perm=(0, 2, 1, 3)) for i in (0, 2))
    k = w.add("Transpose", heads[1], perm=(0, 2, 3, 1))
    scores = w.add("Mul", w.add("MatMul", q, k), w.constant(1.0 / sqrt(size), "scale"))
    if layer.causal:
        scores = w.add("Add", scores, w.constant(np.triu(np.full((length, length), -np.inf), 1), "mask"))
    y = w.add("MatMul", w.add("Softmax", scores, axis=-1), v)
    y = reshaped(w, w.add("Transpose", y, perm=(0, 2, 1, 3)), (length, features))
    return _projected(w, layer, y, "out_proj.")


def _projected(w: Writer, layer: Any, x: str, prefix: str) -> str:
    y = w.add("MatMul", x, w.add("Transpose", w.weight(layer, f"{prefix}weight"), perm=(1, 0)))
    return str(w.add("Add", y, w.weight(layer, f"{prefix}bias"))) if layer.bias else str(y)


def joined(operator: str) -> Any:
    """The sum or product of several arrays, from the first to the last."""

    def write(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
        value = inputs[0]
        for other in inputs[1:]:
            value = w.add(operator, value, other)
        return str(value)

    return write


def concat(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Arrays joined along an axis."""
    return str(w.add("Concat", *inputs, axis=layer.axis))


def nothing(w: Writer, layer: Any, inputs: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The input as it is: a layer that does something in training only."""
    return inputs[0]
