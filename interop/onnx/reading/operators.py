"""Layers for operators without weights: activations, pools, and what moves values.

A function for each operator returns the layers that compute it, one after the other; none for what changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TypeAlias

import numpy as np

from .... import layers as nn
from ....layers.activations.rectifiers import SELU_ALPHA, SELU_SCALE
from ....layers.core.layer import Layer
from ...unsupported import Unsupported
from .layers import by_axes, padding_of, windowed
from .node import Node, short
from .resizing import resize

Layers: TypeAlias = Sequence[Layer]
Convert: TypeAlias = Callable[[Node], Layers]

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def simple(kind: Callable[..., Layer], **attributes: tuple[str, float]) -> Convert:
    """A layer whose arguments are numbers among the attributes, with ONNX's default."""
    return lambda node: [kind(**{ours: node.number(*theirs) for ours, theirs in attributes.items()})]


def nothing(node: Node) -> Layers:
    """What returns its input as it is."""
    return []


def dropout(node: Node) -> Layers:
    """`Dropout`, which does nothing in evaluation."""
    ratio = node.constant(1, "the ratio") if len(node.inputs) > 1 else None
    p = node.number("ratio", 0.5) if ratio is None else float(np.float32(ratio.reshape(-1)[0]).astype(str))
    if len(node.inputs) > 2 and (mode := node.constant(2, "training_mode")) is not None and bool(mode.reshape(-1)[0]):
        raise Unsupported("dropout in evaluation too")
    return [nn.Dropout(p)]


def softmax(kind: Callable[..., Layer]) -> Convert:
    """`Softmax`, `LogSoftmax`, `Hardmax`, whose older forms join all axes from one on."""

    def convert(node: Node) -> Layers:
        axis = node.integer("axis", 1 if node.opset < 13 else -1)
        count = len(node.shape)
        if node.opset < 13 and axis % count != count - 1:
            raise Unsupported(f"axis={axis} of {count} before opset 13, which joins the axes after it")
        return [kind(axis=axis)]

    return convert


def clip(node: Node) -> Layers:
    """`ReLU6` or `Clip`."""
    limits: list[float | None] = []
    for index, name, none in ((1, "min", -inf), (2, "max", inf)):
        value = node.constant(index, name)
        limit = node.number(name, none) if value is None else short(value)
        limits.append(None if abs(limit) > 3.4e38 else limit)
    return [nn.ReLU6()] if limits == [0.0, 6.0] else [nn.Clip(*limits)]


def shrink(node: Node) -> Layers:
    """`HardShrink` or `SoftShrink`."""
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    if bias not in (0.0, lambd):
        raise Unsupported(f"bias={bias:g} with lambd={lambd:g}")
    return [nn.SoftShrink(lambd) if bias else nn.HardShrink(lambd)]


def selu(node: Node) -> Layers:
    """`SELU`, whose numbers are fixed."""
    alpha, gamma = node.number("alpha", SELU_ALPHA), node.number("gamma", SELU_SCALE)
    if abs(alpha - SELU_ALPHA) > 1e-6 or abs(gamma - SELU_SCALE) > 1e-6:
        raise Unsupported(f"alpha={alpha:g} and gamma={gamma:g}")
    return [nn.SELU()]


def gelu(node: Node) -> Layers:
    """`GELU`."""
    return [nn.GELU(approximate=node.text("approximate", "none"))]


def pool(kind: str) -> Convert:
    """Pools over windows."""

    def convert(node: Node) -> Layers:
        kernel = node.integers("kernel_shape") or []
        axes = len(kernel)
        if len([name for name in node.outputs if name]) > 1:
            raise Unsupported("indices as a second output")
        options = windowed(node, axes)
        padding = padding_of(node, axes)
        if isinstance(padding, int | tuple):
            # As pairs, which may be more than half of a window.
            each = padding if isinstance(padding, tuple) else (padding,) * axes
            pairs = tuple(p if isinstance(p, tuple) else (p, p) for p in each)
            padding = pairs if any(2 * max(p) > k for p, k in zip(pairs, kernel, strict=True)) else padding
        options |= {"padding": padding, "ceil_mode": bool(node.integer("ceil_mode", 0))}
        if kind == "AvgPool":
            options["count_include_pad"] = bool(node.integer("count_include_pad", 0))
        if kind == "LpPool":
            options["norm_type"] = node.integer("p", 2)
        return [by_axes(kind, axes)(kernel_size=tuple(kernel), **options)]

    return convert


def global_lp(node: Node) -> Layers:
    """`GlobalLpPool`."""
    return [nn.GlobalLpPool(float(node.integer("p", 2)))]


def reduced(kind: Callable[[], Layer]) -> Convert:
    """A mean or maximum over all axes behind the channels, or over the positions of a sequence."""

    def convert(node: Node) -> Layers:
        axes, count = node.integers("axes") or node.sizes(1, "axes"), len(node.shape)
        node.integer("noop_with_empty_axes", 0)
        if not axes:
            raise Unsupported("over all axes, the batch too")
        found, keeps = sorted({axis % count for axis in axes}), bool(node.integer("keepdims", 1))
        if count >= 3 and found == list(range(2, count)):
            return [kind()] if keeps else [kind(), nn.Flatten()]
        if count == 3 and found == [1]:
            layers: list[Layer] = [nn.Permute(2, 1), kind()]
            return [*layers, nn.Permute(2, 1)] if keeps else [*layers, nn.Flatten()]
        raise Unsupported(f"over the axes {axes} of {count}")

    return convert


def reshape(node: Node) -> Layers:
    """`Flatten` or `Reshape`, from the shapes before and after."""
    before, after = node.shape, node.result_shape
    # Attributes say how the sizes follow, which are known.
    node.ignore_attributes()
    if before[:1] != after[:1]:
        raise Unsupported(f"a reshape of {before} to {after}, which changes the batch axis")
    if before == after:
        return []
    return [nn.Flatten()] if len(after) == 2 else [nn.Reshape(*after[1:])]


def flatten(node: Node) -> Layers:
    """`Flatten`."""
    if node.integer("axis", 1) == 1:
        return [nn.Flatten()]
    return reshape(node)


def transpose(node: Node) -> Layers:
    """`Permute`."""
    order = node.integers("perm") or list(reversed(range(len(node.shape))))
    if order[:1] != [0]:
        raise Unsupported(f"perm={order}, which moves the batch axis")
    return [nn.Permute(*order[1:])] if order != sorted(order) else []


def pad(node: Node) -> Layers:
    """`Pad`."""
    mode, count = node.text("mode", "constant"), len(node.shape)
    pads = node.sizes(1, "pads") if node.opset >= 11 else node.integers("pads")
    value = node.constant(2, "the value")
    number = node.number("value", 0.0) if value is None else short(value)
    axes = node.sizes(3, "axes") if len(node.inputs) > 3 else None
    axes = list(range(count)) if axes is None else [axis % count for axis in axes]
    if pads is None or len(pads) != 2 * len(axes) or mode not in _PAD_MODES:
        raise Unsupported(f"pads={pads} with mode={mode}")
    pairs = [(0, 0)] * count
    for i, axis in enumerate(axes):
        pairs[axis] = (pads[i], pads[len(axes) + i])
    if any(map(any, pairs[:2])) or min(map(min, pairs)) < 0:
        raise Unsupported(f"pads={pads}; cells are added to spatial axes only")
    if not any(map(any, pairs)):
        return []
    return [nn.Pad(tuple(pairs[2:]), value=number if mode == "constant" else 0.0, mode=_PAD_MODES[mode])]


def depth_to_space(node: Node) -> Layers:
    """`PixelShuffle`, or the same by axes for the other order of channels."""
    b, (_, channels, height, width) = node.integer("blocksize", 0), _plane(node)
    if b < 1 or channels % (b * b):
        raise Unsupported(f"blocksize={b} for {channels} channels")
    if node.text("mode", "DCR") == "CRD":
        return [nn.PixelShuffle(b)]
    rest = channels // (b * b)
    return [nn.Reshape(b, b, rest, height, width), nn.Permute(3, 4, 1, 5, 2), nn.Reshape(rest, height * b, width * b)]


def space_to_depth(node: Node) -> Layers:
    """Its order of channels, by axes."""
    b, (_, channels, height, width) = node.integer("blocksize", 0), _plane(node)
    if node.text("mode", "DCR") != "DCR":
        raise Unsupported(f"mode={node.text('mode', 'DCR')}")
    if b < 1 or height % b or width % b:
        raise Unsupported(f"blocksize={b} for {height} x {width}")
    h, w = height // b, width // b
    return [nn.Reshape(channels, h, b, w, b), nn.Permute(3, 5, 1, 2, 4), nn.Reshape(channels * b * b, h, w)]


def _plane(node: Node) -> tuple[int, int, int, int]:
    if len(node.shape) != 4:
        raise Unsupported(f"an input of shape {node.shape}")
    n, c, h, w = node.shape
    return n, c, h, w


OPERATORS: dict[str, Convert] = {
    "Identity": nothing,
    "Cast": nothing,
    "Dropout": dropout,
    "Relu": simple(nn.ReLU),
    "LeakyRelu": simple(nn.LeakyReLU, negative_slope=("alpha", 0.01)),
    "Elu": simple(nn.ELU, alpha=("alpha", 1.0)),
    "Celu": simple(nn.CELU, alpha=("alpha", 1.0)),
    "Selu": selu,
    "Sigmoid": simple(nn.Sigmoid),
    "Tanh": simple(nn.Tanh),
    "Softplus": simple(nn.Softplus),
    "Softsign": simple(nn.Softsign),
    "Mish": simple(nn.Mish),
    "Gelu": gelu,
    "HardSigmoid": simple(nn.HardSigmoid, alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "HardSwish": simple(nn.HardSwish),
    "ThresholdedRelu": lambda node: [nn.Threshold(node.number("alpha", 1.0), 0.0)],
    "Shrink": shrink,
    "Clip": clip,
    "Softmax": softmax(nn.Softmax),
    "LogSoftmax": softmax(nn.LogSoftmax),
    "Hardmax": softmax(nn.Hardmax),
    "MaxPool": pool("MaxPool"),
    "AveragePool": pool("AvgPool"),
    "LpPool": pool("LpPool"),
    "GlobalAveragePool": simple(nn.GlobalAvgPool),
    "GlobalMaxPool": simple(nn.GlobalMaxPool),
    "GlobalLpPool": global_lp,
    "ReduceMean": reduced(nn.GlobalAvgPool),
    "ReduceMax": reduced(nn.GlobalMaxPool),
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Transpose": transpose,
    "Pad": pad,
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "LRN": lambda node: [_lrn(node)],
}


def _lrn(node: Node) -> Layer:
    size = node.integer("size", 0)
    if size % 2 == 0:
        raise Unsupported(
            f"size={size}; neighbours on both sides of a channel are equally many here for odd sizes only"
        )
    return nn.LocalResponseNorm(
        size, alpha=node.number("alpha", 1e-4), beta=node.number("beta", 0.75), k=node.number("bias", 1.0)
    )
