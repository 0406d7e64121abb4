"""Which layers of a `Sequential`, or of a chain in a `Graph`, are computed together, and how.

==============================================  ======================  ==================================
layers                                          when                    result
==============================================  ======================  ==================================
convolution, dense or batch norm, then ReLU     training, evaluation    the same bits
sum of a residual block, or `Add`, then ReLU    training, evaluation    the same bits
convolution or dense, then batch norm (, ReLU)  evaluation, on the CPU  differs in rounding, see `folding`
==============================================  ======================  ==================================

In exact numerics only batch norm, or a sum, and ReLU are computed together. All of it holds for layers on one backend,
and only for the library's own classes: a subclass may compute something else. A layer whose ``forward`` was replaced,
as by `watched`, is computed by itself, so that whoever watches sees each layer's output. What the layers save for
backward is what they save on their own.

In backward the gradient of a ReLU is computed together with that of the batch norm before it, with the same bits, if an
engine computed both forward (`ChannelNorm.covers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...backends import origins
from ...common.types import Array
from ..activations import ReLU
from ..convolution.conv import Conv1d, Conv2d, Conv3d
from ..convolution.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..core.layer import Layer
from ..core.release_after_backward import is_within_released
from ..dense import Dense
from ..normalisation.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .folding import forward_folded, is_foldable
from .joins import Add

_CONVOLUTIONS = (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
_JOINS = frozenset((Add,))
_NORMS = frozenset((BatchNorm1d, BatchNorm2d, BatchNorm3d))
_AFFINE = frozenset((*_CONVOLUTIONS, Dense))
_FUSING = _AFFINE | _NORMS | _JOINS


def forward_all(layers: Sequence[Layer], x: Any) -> Array:
    """Pass ``x``, an array or what the first layer accepts, through all layers, some of which are computed together."""
    count, i = len(layers), 0
    while i < count:
        layer: Any = layers[i]
        i += 1
        if i == count or type(layer) not in _FUSING or "forward" in vars(layer):
            x = layer.forward(x)
            continue
        following: Any = layers[i]
        if _folds(layer, following, x):
            relu = layers[i + 1] if i + 1 < count and is_relu(layers[i + 1], layer) else None
            y = forward_folded(layer, following, relu, x)
            if y is not None:
                x, i = y, i + 1 + (relu is not None)
                continue
        if is_relu(following, layer):
            x = layer.forward_and_relu(x, following)
            i += 1
        else:
            x = layer.forward(x)
    return x


def backward_all(layers: Sequence[Layer], first: int, dy: Array, input_grad: bool) -> Array:
    """Pass a gradient back through the layers from the last to the one at ``first``.

    The gradient of a ReLU is left to the batch norm before it, if that includes it.
    """
    for i in reversed(range(first, len(layers))):
        layer: Any = layers[i]
        if i > first and type(layer) is ReLU and type(layers[i - 1]) in _NORMS and _is_covered(layer, layers[i - 1]):
            # The norm checks the gradient, too.
            if is_within_released():
                layer.saved = layer._output = None
            continue
        dy = layer.backward(dy, input_grad=input_grad or i > first)
    return dy


def _is_covered(relu: Any, norm: Any) -> bool:
    """Whether the backward of a batch norm includes that of a ReLU, and nobody watches these."""
    watched = "backward" in vars(relu) or "backward" in vars(norm) or origins.watching
    return not watched and norm.covers(relu)


def _folds(layer: Any, norm: Any, x: Array) -> bool:
    """Whether a layer is followed by a batch norm that it can compute."""
    is_norm = type(norm) in _NORMS and type(layer) in _AFFINE and "forward" not in vars(norm)
    return is_norm and is_foldable(layer, norm, x)


def is_relu(layer: Layer | None, before: Layer) -> bool:
    """Whether a layer is a ReLU that can be computed together with the one before it, which may be a container."""
    if type(layer) is not ReLU or "forward" in vars(layer):
        return False
    b = before.backend
    return layer.backend is b and (b.numerics == "fast" or type(before) not in _AFFINE)
