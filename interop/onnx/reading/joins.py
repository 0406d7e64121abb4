"""Layers for operators that compute with two arrays, or with one and a constant, entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import layers as nn
from ....layers.core.layer import Layer
from ...unsupported import Unsupported
from .layers import Made
from .node import Node


def join(node: Node) -> Layer | None:
    """The join of several arrays; None for that of one."""
    shapes = [shape for shape in node.shapes if shape is not None]
    if len(node.arrays) == 1:
        return None
    if len({len(shape) for shape in shapes}) > 1 or len({shape[:1] for shape in shapes}) > 1:
        raise Unsupported(f"of shapes {', '.join(map(str, shapes))}")
    if node.operator == "Concat":
        axis = node.integer("axis", 0)
        if axis == 0 or (shapes and axis % len(shapes[0]) == 0):
            raise Unsupported("along the batch axis")
        return nn.Concat(axis)
    return nn.Multiply() if node.operator == "Mul" else nn.Add()


def per_channel(node: Node) -> Made | None:
    """A number, or one for each channel, that is added or multiplied: a convolution of each channel by itself.

    None if it changes nothing. The convolution is frozen, because it was a constant. What is added to the positions of
    a sequence is a `PositionEmbedding`.
    """
    constant = next(each for each in node.inputs if not isinstance(each, str))
    first = not isinstance(node.inputs[0], str)
    if constant is None or constant.dtype.kind != "f" or (first and node.operator in ("Sub", "Div")):
        raise Unsupported("of a constant and an array")
    shape = node.shape
    positions = constant.shape[-2:] if constant.ndim == 3 and constant.shape[0] == 1 else constant.shape
    if node.operator == "Add" and len(shape) == 3 and positions == shape[1:]:
        source = next(name for name, each in zip(node.sources, node.inputs, strict=True) if not isinstance(each, str))
        weight = constant.reshape(positions)
        return Made(nn.PositionEmbedding(*positions), {"weight": weight}, {"weight": source})
    neutral = 1.0 if node.operator in ("Mul", "Div") else 0.0
    if constant.size == 1 and constant.ndim <= len(shape) and float(constant.reshape(-1)[0]) == neutral:
        return None
    padded = (1,) * (len(shape) - constant.ndim) + constant.shape
    axes = len(shape) - 2
    if (
        axes not in (1, 2, 3)
        or len(padded) != len(shape)
        or padded
        not in (
            (1,) * len(shape),
            (1, shape[1], *[1] * axes),
        )
    ):
        raise Unsupported(f"of an array of shape {shape} and a constant of shape {constant.shape}")
    channels = shape[1]
    values = np.broadcast_to(constant.reshape(-1), (channels,))
    weight, bias = np.ones(channels, constant.dtype), None
    if node.operator in ("Mul", "Div"):
        weight = values if node.operator == "Mul" else (1.0 / values).astype(constant.dtype)
    else:
        bias = values if node.operator == "Add" else -values
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    layer = kind(channels, channels, 1, groups=channels, bias=bias is not None)
    for parameter in layer.parameters.values():
        parameter.requires_grad = False
    found = {"weight": weight.reshape(channels, 1, *[1] * axes)}
    return Made(layer, found if bias is None else {**found, "bias": bias})
