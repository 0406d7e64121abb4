"""Batch norm folded into the convolution or dense layer before it, in evaluation.

With its running statistics a batch norm is a scale and a shift for each channel, which the layer before it can apply
itself, so that a pass over the output is saved::

    s = gamma / sqrt(var + eps)        weight' = s weight        bias' = s (bias - mean) + beta

both computed in float64 and rounded once. Results differ from those of the two layers in rounding only: about as much
as sums of products in another order.

A layer with a large weight and a small output is left alone: its batch norm takes no time beside its products, and
folding, which is repeated in each call while a user holds one of the arrays (`xpnn.layers.core.kept`), takes much.

Where one of the folded numbers is infinite or NaN, the layers are computed one after the other. An infinity that is
multiplied by 0 is NaN, and which numbers meet depends on the order.
"""

from __future__ import annotations

from functools import partial
from math import isfinite, prod
from typing import Any, TypeAlias

from ...backends import operations_of
from ...backends.recording.calls import decide
from ...backends.recording.guards import in_recording
from ...common.types import Array, Namespace
from ..core.errors import with_owner
from ..core.fusing import Affine
from ..core.grad_mode import grad_mode
from ..core.layer import Layer
from ..normalisation.batch_norm import BatchNorm

STATISTICS = ("running_mean", "running_var")
#: Weight and bias; None where they are not to be used.
Folded: TypeAlias = tuple[Array, Array] | None


def is_foldable(layer: Affine, norm: BatchNorm, x: Array) -> bool:
    """Whether layers and input allow it; whether the numbers do shows `forward_folded`.

    The layers must be in evaluation, with nothing to save for backward, on one backend with fast numerics, where a
    number can be read without waiting for a device, and the channels of the layer must be those of the norm.
    """
    if layer.training or norm.training or not norm.track_running_stats or grad_mode():
        return False
    b = layer.backend
    if b.numerics != "fast" or b.narrow is not None or norm.backend is not b or not operations_of(b.xp).cheap_reads:
        return False
    shape: tuple[int, ...] = tuple(getattr(x, "shape", ()))
    rank = len(shape)
    if layer._output_channels(rank) != norm.num_features or rank not in norm.ranks:
        return False
    # The weight has at most twice as many entries as the output, were that not smaller than the input.
    terms: int = prod(layer.parameters["weight"].shape) // norm.num_features
    return 2 * shape[0] * prod(shape[2:]) >= terms


def forward_folded(layer: Affine, norm: BatchNorm, relu: Layer | None, x: Array) -> Array | None:
    """The output of both layers, and of a ReLU after them unless it is None; None if the numbers do not allow it."""
    b = layer.backend
    try:
        layer._check_array(x, "input")
        sources = (*layer._sources(("weight", "bias")), *norm._sources(("weight", "bias", *STATISTICS)))
        keep = layer._keep(("folded", norm.eps), sources)
        folded = keep("folded", lambda: fold(layer, norm, b.xp))
        if folded is None:
            return None
        with b.context():
            y = layer._affine(b.up(x), *folded, keep, relu is not None)
    except (TypeError, ValueError) as error:
        raise with_owner(error, layer) from error
    for each in (layer, norm) if relu is None else (layer, norm, relu):
        each.save_for_backward()
        each._record_output(y)
    return y


def fold(layer: Affine, norm: BatchNorm, xp: Namespace) -> Folded:
    """Weight and bias of both layers together; None if they are not finite, or if the arrays do not fit together."""
    weight: Array = layer.parameter_value("weight")
    bias = layer.parameter_value("bias")
    gamma, beta = norm.parameter_value("weight"), norm.parameter_value("bias")
    mean, var = norm.buffer_value("running_mean"), norm.buffer_value("running_var")
    vectors = [each for each in (bias, gamma, beta, mean, var) if each is not None]
    if any(each.dtype != weight.dtype or tuple(each.shape) != (norm.num_features,) for each in vectors):
        # The layers themselves raise the error.
        return None
    arrays = (weight, bias, gamma, beta, mean, var)
    if in_recording():
        # A replay reads no numbers of its own results; of its arguments it can.
        return _folded(layer, norm.eps, *arrays) if decide(partial(_is_finite, layer, norm.eps), *arrays) else None
    folded = _folded(layer, norm.eps, *arrays)
    return folded if _are_finite(folded, xp) else None


def _folded(
    layer: Affine,
    eps: float,
    weight: Array,
    bias: Array | None,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
) -> tuple[Array, Array]:
    """Weight and bias of both layers together."""
    xp, dtype = layer.backend.xp, weight.dtype
    bias, gamma, beta = (None if each is None else xp.astype(each, xp.float64) for each in (bias, gamma, beta))
    with layer.backend.unwarned():
        scale = 1.0 / xp.sqrt(xp.astype(var, xp.float64) + eps)
        scale = scale if gamma is None else scale * gamma
        shift = -xp.astype(mean, xp.float64) if bias is None else bias - xp.astype(mean, xp.float64)
        shift = shift * scale if beta is None else shift * scale + beta
        return xp.astype(layer._scaled(xp.astype(weight, xp.float64), scale), dtype), xp.astype(shift, dtype)


def _are_finite(folded: tuple[Array, Array], xp: Namespace) -> bool:
    # A sum is finite only if all terms are.
    return isfinite(float(sum(xp.sum(xp.abs(each), dtype=xp.float64) for each in folded)))


def _is_finite(layer: Affine, eps: float, *arrays: Any) -> bool:
    """Whether the arrays of `_folded` give finite numbers."""
    return _are_finite(_folded(layer, eps, *arrays), layer.backend.xp)
