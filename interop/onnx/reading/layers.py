"""Layers for operators with weights, and their values.

A function for each operator returns a `Made`: the layer, and the constants of the file from which its parameters and
buffers are set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .... import layers as nn
from ....layers.core.layer import Layer
from ...unsupported import Unsupported
from .node import Node


@dataclass(frozen=True)
class Made:
    """A layer, values of its parameters and buffers, and the names of those in the file."""

    layer: Layer
    values: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def by_axes(name: str, axes: int) -> Any:
    """The class for a number of spatial axes."""
    if axes not in (1, 2, 3):
        raise Unsupported(f"{axes} spatial axes, where layers have 1 to 3")
    return getattr(nn, f"{name}{axes}d")


def padding_of(node: Node, axes: int) -> Any:
    """The padding of an operator with windows."""
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return "same" if auto == "SAME_UPPER" else "same_lower"
    if auto == "VALID":
        return 0
    if auto != "NOTSET":
        raise Unsupported(f"auto_pad={auto}")
    pads = node.integers("pads")
    if pads is None or not any(pads):
        return 0
    if len(pads) != 2 * axes or min(pads) < 0:
        raise Unsupported(f"pads={pads}")
    pairs = tuple((pads[i], pads[axes + i]) for i in range(axes))
    if all(before == after for before, after in pairs):
        return tuple(before for before, _ in pairs) if len({*pairs}) > 1 else pairs[0][0]
    return pairs


def windowed(node: Node, axes: int) -> dict[str, Any]:
    """Stride and dilation of an operator with windows."""
    found = {}
    for ours, theirs in (("stride", "strides"), ("dilation", "dilations")):
        sizes = node.integers(theirs)
        if sizes is not None and len(sizes) != axes:
            raise Unsupported(f"{theirs}={sizes} for {axes} spatial axes")
        found[ours] = tuple(sizes) if sizes else (1,) * axes
    return found


def _checked_kernel(node: Node, weight: Any) -> tuple[int, ...]:
    kernel = tuple(weight.shape[2:])
    given = node.integers("kernel_shape")
    if weight.ndim < 3 or not all(weight.shape) or (given is not None and tuple(given) != kernel):
        raise Unsupported(f"a weight of shape {weight.shape} for kernel_shape {given}")
    return kernel


def _with_bias(node: Node, weight: Any, index: int, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Weight and bias by the names of parameters; the names in the file likewise."""
    values, names = {"weight": weight}, {"weight": node.sources[1]}
    bias = node.constant(index, "the bias")
    if bias is not None:
        if bias.dtype.kind != "f" or bias.shape != (size,):
            raise Unsupported(f"a bias of shape {bias.shape} for {size} channels")
        values["bias"], names["bias"] = bias, node.sources[index]
    return values, names


def conv(node: Node) -> Made:
    """`Conv1d`, `Conv2d`, `Conv3d`."""
    weight, groups = node.weight(1, "the weight"), node.integer("group", 1)
    kernel = _checked_kernel(node, weight)
    values, names = _with_bias(node, weight, 2, weight.shape[0])
    layer = by_axes("Conv", len(kernel))(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        padding=padding_of(node, len(kernel)),
        groups=groups,
        bias="bias" in values,
        **windowed(node, len(kernel)),
    )
    return Made(layer, values, names)


def conv_transpose(node: Node) -> Made:
    """`ConvTranspose1d`, `ConvTranspose2d`, `ConvTranspose3d`."""
    weight, groups = node.weight(1, "the weight"), node.integer("group", 1)
    kernel = _checked_kernel(node, weight)
    if node.has("output_shape") or node.text("auto_pad", "NOTSET").startswith("SAME"):
        raise Unsupported("a padding by output_shape or SAME; give it as pads")
    values, names = _with_bias(node, weight, 2, weight.shape[1] * groups)
    layer = by_axes("ConvTranspose", len(kernel))(
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        padding=padding_of(node, len(kernel)),
        output_padding=tuple(node.integers("output_padding") or (0,) * len(kernel)),
        groups=groups,
        bias="bias" in values,
        **windowed(node, len(kernel)),
    )
    return Made(layer, values, names)


def gemm(node: Node) -> Made:
    """`Dense`."""
    weight = node.weight(1, "the weight")
    node.require(transA=0)
    if weight.ndim != 2:
        raise Unsupported(f"a weight of shape {weight.shape}")
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    weight = weight if node.integer("transB", 0) else weight.T
    values, names = {"weight": weight if alpha == 1.0 else weight * np.asarray(alpha, weight.dtype)}, {}
    names["weight"] = node.sources[1]
    bias = node.constant(2, "the bias")
    if bias is not None:
        size = weight.shape[0]
        if bias.dtype.kind != "f" or bias.size not in (1, size) or bias.shape[-1:] not in ((), (1,), (size,)):
            raise Unsupported(f"a bias of shape {bias.shape} for {size} features")
        bias = np.broadcast_to(np.reshape(bias, -1), (size,))
        values["bias"] = bias if beta == 1.0 else bias * np.asarray(beta, bias.dtype)
        names["bias"] = node.sources[2]
    return Made(nn.Dense(weight.shape[1], weight.shape[0], bias="bias" in values), values, names)


def matmul(node: Node) -> Made:
    """`Dense` without a bias, which an `Add` after it may give."""
    if not isinstance(node.inputs[0], str):
        raise Unsupported("a product of a constant with an array")
    weight = node.weight(1, "the second factor")
    if weight.ndim != 2:
        raise Unsupported(f"a weight of shape {weight.shape}")
    inputs, outputs = weight.shape
    return Made(nn.Dense(inputs, outputs, bias=False), {"weight": weight.T}, {"weight": node.sources[1]})


def _affine_values(node: Node, *names: str) -> tuple[dict[str, Any], dict[str, str]]:
    values = {name: node.weight(i, name) for i, name in enumerate(names, start=1)}
    shapes = {each.shape for each in values.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise Unsupported(f"parameters of shapes {', '.join(map(str, sorted(shapes)))}")
    return values, {name: node.sources[i] for i, name in enumerate(names, start=1)}


def batch_norm(node: Node) -> Made:
    """`BatchNorm1d`, `BatchNorm2d`, `BatchNorm3d`."""
    node.require(training_mode=0, spatial=1)
    if len([name for name in node.outputs if name]) > 1:
        raise Unsupported("outputs of training")
    values, names = _affine_values(node, "weight", "bias", "running_mean", "running_var")
    # ONNX's momentum is the share of the old value.
    momentum = float(f"{1.0 - node.number('momentum', 0.9):.6g}")
    layer = by_axes("BatchNorm", max(1, len(node.shape) - 2))(
        len(values["weight"]), eps=node.number("epsilon", 1e-5), momentum=momentum
    )
    return Made(layer, values, names)


def instance_norm(node: Node) -> Made:
    """`InstanceNorm1d`, `InstanceNorm2d`, `InstanceNorm3d`."""
    values, names = _affine_values(node, "weight", "bias")
    kind = by_axes("InstanceNorm", len(node.shape) - 2)
    return Made(kind(len(values["weight"]), eps=node.number("epsilon", 1e-5), affine=True), values, names)


def group_norm(node: Node) -> Made:
    """`GroupNorm`."""
    groups = node.integer("num_groups", 0)
    values, names = _affine_values(node, "weight", "bias")
    if len(values["weight"]) != node.shape[1]:
        raise Unsupported("a weight for each group, as of opset 18")
    return Made(nn.GroupNorm(groups, node.shape[1], eps=node.number("epsilon", 1e-5)), values, names)


def layer_norm(node: Node) -> Made:
    """`LayerNorm`."""
    return _last_axes(node, nn.LayerNorm, node.number("epsilon", 1e-5))


def rms_norm(node: Node) -> Made:
    """`RMSNorm`."""
    return _last_axes(node, nn.RMSNorm, node.number("epsilon", 1e-5))


def _last_axes(node: Node, kind: Any, eps: float) -> Made:
    scale = node.weight(1, "the scale")
    count, axis = len(node.shape), node.integer("axis", -1)
    if axis % count != count - scale.ndim or scale.shape != node.shape[axis % count :]:
        raise Unsupported(f"a scale of shape {scale.shape} for axis {axis} of {node.shape}")
    if len([name for name in node.outputs if name]) > 1:
        raise Unsupported("several outputs")
    values, names = {"weight": scale}, {"weight": node.sources[1]}
    options: dict[str, Any] = {}
    if kind is nn.LayerNorm:
        bias = node.constant(2, "the bias")
        options["bias"] = bias is not None
        if bias is not None:
            values["bias"], names["bias"] = bias, node.sources[2]
    return Made(kind(scale.shape, eps=eps, **options), values, names)


def prelu(node: Node) -> Made:
    """`PReLU`."""
    slope = node.weight(1, "the slope")
    channels = node.shape[1] if len(node.shape) > 1 else 1
    padded = (1,) * (len(node.shape) - slope.ndim) + slope.shape
    if slope.size == 1:
        return Made(nn.PReLU(), {"weight": slope.reshape(1)}, {"weight": node.sources[1]})
    if len(padded) != len(node.shape) or padded != (1, channels, *[1] * (len(node.shape) - 2)):
        raise Unsupported(f"slopes of shape {slope.shape} for an input of shape {node.shape}")
    return Made(nn.PReLU(channels), {"weight": slope.reshape(-1)}, {"weight": node.sources[1]})


def gather(node: Node) -> Made:
    """`Embedding`."""
    weight = node.weight(0, "the first input")
    node.require(axis=0)
    if weight.ndim != 2:
        raise Unsupported(f"rows of an array of shape {weight.shape}")
    return Made(nn.Embedding(*weight.shape), {"weight": weight}, {"weight": node.sources[0]})
