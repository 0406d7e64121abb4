"""Which layer is written by which operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import layers as nn
from ...layers.activations.rectifiers import SELU_ALPHA, SELU_SCALE
from ...layers.core.layer import Layer
from . import activations, norms, shapes, windows
from .activations import Write, clip, elu, in_float32, operator, shrink

_AXES = (1, 2, 3)


def _by_axes(name: str, write: Any) -> dict[type[Layer], Write]:
    return {getattr(nn, f"{name}{d}d"): write for d in _AXES}


#: A function that writes the operators of a layer, by its class.
WRITERS: Mapping[type[Layer], Write] = {
    nn.Dense: shapes.dense,
    nn.Embedding: shapes.embedding,
    nn.PositionEmbedding: shapes.position_embedding,
    nn.MultiHeadAttention: shapes.attention,
    **_by_axes("Conv", windows.conv),
    **_by_axes("ConvTranspose", windows.conv_transpose),
    **_by_axes("MaxPool", windows.max_pool),
    **_by_axes("AvgPool", windows.avg_pool),
    **_by_axes("LpPool", windows.lp_pool),
    **_by_axes("AdaptiveAvgPool", windows.adaptive("Mean")),
    **_by_axes("AdaptiveMaxPool", windows.adaptive("Max")),
    nn.AdaptiveAvgPool: windows.adaptive("Mean"),
    nn.AdaptiveMaxPool: windows.adaptive("Max"),
    nn.GlobalAvgPool: windows.adaptive("Mean"),
    nn.GlobalMaxPool: windows.adaptive("Max"),
    nn.GlobalLpPool: windows.global_lp_pool,
    **_by_axes("BatchNorm", norms.batch_norm),
    **_by_axes("InstanceNorm", norms.instance_norm),
    nn.LayerNorm: norms.layer_norm,
    nn.GroupNorm: norms.group_norm,
    nn.RMSNorm: norms.rms_norm,
    nn.LocalResponseNorm: norms.local_response_norm,
    nn.Dropout: shapes.nothing,
    **_by_axes("Dropout", shapes.nothing),
    nn.Identity: shapes.nothing,
    nn.ReLU: operator("Relu"),
    nn.ReLU6: clip(0.0, 6.0),
    nn.ELU: in_float32("Elu", elu("alpha", 1.0, 1.0), alpha="alpha"),
    nn.CELU: in_float32("Celu", elu("alpha", "alpha", 1.0), alpha="alpha"),
    nn.SELU: in_float32("Selu", elu(SELU_SCALE * SELU_ALPHA, 1.0, SELU_SCALE)),
    nn.GELU: activations.gelu,
    nn.SiLU: activations.silu,
    nn.Mish: operator("Mish", opset=18),
    nn.LeakyReLU: in_float32("LeakyRelu", activations.leaky_relu, alpha="negative_slope"),
    nn.PReLU: activations.prelu,
    nn.Softplus: activations.softplus,
    nn.Softsign: operator("Softsign"),
    nn.Sigmoid: operator("Sigmoid"),
    nn.LogSigmoid: activations.log_sigmoid,
    nn.Tanh: operator("Tanh"),
    nn.TanhShrink: activations.tanh_shrink,
    nn.HardSigmoid: in_float32("HardSigmoid", activations.hard_sigmoid, alpha="alpha", beta="beta"),
    nn.HardSwish: in_float32("HardSwish", activations.hard_swish),
    nn.HardTanh: clip("min_val", "max_val"),
    nn.HardShrink: shrink(False),
    nn.SoftShrink: shrink(True),
    nn.Clip: clip("min", "max"),
    nn.Threshold: activations.threshold,
    nn.GLU: activations.glu,
    nn.Softmax: operator("Softmax", attributes={"axis": "axis"}),
    nn.LogSoftmax: operator("LogSoftmax", attributes={"axis": "axis"}),
    nn.Softmin: activations.softmin,
    nn.Hardmax: operator("Hardmax", attributes={"axis": "axis"}),
    nn.Flatten: shapes.flatten,
    nn.Reshape: shapes.reshape,
    nn.Permute: shapes.permute,
    nn.Pad: shapes.pad,
    nn.PixelShuffle: shapes.pixel_shuffle,
    nn.PixelUnshuffle: shapes.pixel_unshuffle,
    nn.Upsample: shapes.upsample,
    nn.Add: shapes.joined("Add"),
    nn.Multiply: shapes.joined("Mul"),
    nn.Concat: shapes.concat,
}
