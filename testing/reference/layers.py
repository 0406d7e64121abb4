"""The reference result of a layer: which loops compute it."""

from collections.abc import Callable
from typing import Any

from ... import layers
from ...layers import pool
from ...layers.convolution.conv import Conv
from ...layers.convolution.conv_transpose import ConvTranspose
from ...layers.core.layer import Layer
from ...layers.normalisation.channel_norm import ChannelNorm
from . import attention, convolutions, norms, pools, shapes
from .windows import Host, Results, Upstream, wide

LOOPS: dict[type, Callable[[Any, Host, Upstream], Results]] = {
    Conv: convolutions.convolution,
    ConvTranspose: convolutions.transposed,
    layers.Dense: convolutions.dense,
    layers.Embedding: attention.embedding,
    layers.PositionEmbedding: attention.positions,
    layers.Permute: attention.permute,
    layers.MultiHeadAttention: attention.attention,
    pool.MaxPool: pools.max_pool,
    pool.AvgPool: pools.average_pool,
    pool.LpPool: pools.lp_pool,
    layers.GlobalLpPool: pools.global_lp,
    layers.AdaptiveAvgPool: pools.adaptive_average,
    layers.AdaptiveMaxPool: pools.adaptive_maximum,
    ChannelNorm: norms.channel_norm,
    layers.LayerNorm: norms.layer_norm,
    layers.GroupNorm: norms.group_norm,
    layers.RMSNorm: norms.rms_norm,
    layers.LocalResponseNorm: norms.local_response,
    layers.Pad: shapes.pad,
    layers.Upsample: shapes.upsample,
    layers.PixelShuffle: shapes.pixel_shuffle,
    layers.PixelUnshuffle: shapes.pixel_unshuffle,
    layers.Flatten: shapes.in_order,
    layers.Reshape: shapes.in_order,
    layers.Identity: shapes.in_order,
}


def layer_results(layer: Layer, x: Host, upstream: Upstream, training: bool = True) -> Results | None:
    """The arrays that a layer must compute, by the names of `LayerCase.run`; None for layers without loops.

    Parameters
    ----------
    layer : Layer
        On NumPy; its parameters and buffers are read.
    x : ndarray
        The input.
    upstream : callable
        Returns the gradient of the output for its shape.
    training : bool
        With False only the results of the forward, as in evaluation.
    """
    for kind, loops in LOOPS.items():
        if isinstance(layer, kind):
            results = loops(layer, wide(x), upstream)
            return results if training else {name: results[name] for name in results if not name.startswith("d")}
    return None
