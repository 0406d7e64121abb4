"""Pure functions of arrays, without state, for the arrays of any library that follows the Array API standard.

Each function ``f`` has its gradient, ``f_backward``. ``xp=None`` means the namespace of the inputs. If then exact
numerics made one of the inputs, or the enclosing `use_backend` or ``XPNN_NUMERICS`` sets exact numerics, results have
the bits of the layer or loss of that name in exact numerics.
"""

from typing import TYPE_CHECKING, NoReturn

from ..common import other_names
from .activations.clipping import (
    clip,
    clip_backward,
    hard_tanh,
    hard_tanh_backward,
    relu6,
    relu6_backward,
    threshold,
    threshold_backward,
)
from .activations.erf import erf, erfc
from .activations.gated import (
    glu,
    glu_backward,
)
from .activations.hardmax import (
    hardmax,
    hardmax_backward,
)
from .activations.rectifiers import (
    celu,
    celu_backward,
    elu,
    elu_backward,
    leaky_relu,
    leaky_relu_backward,
    prelu,
    prelu_backward,
    relu,
    relu_backward,
    selu,
    selu_backward,
)
from .activations.shrinking import (
    hard_shrink,
    hard_shrink_backward,
    soft_shrink,
    soft_shrink_backward,
    tanh_shrink,
    tanh_shrink_backward,
)
from .activations.sigmoids import (
    hard_sigmoid,
    hard_sigmoid_backward,
    hard_swish,
    hard_swish_backward,
    log_sigmoid,
    log_sigmoid_backward,
    sigmoid,
    sigmoid_backward,
    softsign,
    softsign_backward,
    tanh,
    tanh_backward,
)
from .activations.smooth import (
    gelu,
    gelu_backward,
    mish,
    mish_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
)
from .activations.softmax import (
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
    softmin,
    softmin_backward,
)
from .attention import attention, attention_backward
from .convolution.conv import conv, conv_backward
from .convolution.conv_transpose import conv_transpose, conv_transpose_backward
from .core.function_numerics import in_numerics_of_arrays
from .dense import dense, dense_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward
from .losses.binary_cross_entropy import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
)
from .losses.cross_entropy import cross_entropy, cross_entropy_backward
from .losses.dice import dice, dice_backward
from .losses.focal import focal, focal_backward
from .losses.huber import huber, huber_backward, smooth_l1, smooth_l1_backward
from .losses.kl_divergence import kl_divergence, kl_divergence_backward
from .losses.nll import nll, nll_backward
from .losses.regression import (
    l1,
    l1_backward,
    l2,
    l2_backward,
    mae,
    mae_backward,
    mape,
    mape_backward,
    mse,
    mse_backward,
    msle,
    msle_backward,
)
from .normalisation.batch_norm import batch_norm, batch_norm_backward
from .normalisation.group_norm import group_norm, group_norm_backward
from .normalisation.instance_norm import instance_norm, instance_norm_backward
from .normalisation.layer_norm import layer_norm, layer_norm_backward
from .normalisation.local_response_norm import local_response_norm, local_response_norm_backward
from .normalisation.rms_norm import rms_norm, rms_norm_backward
from .pool.adaptive_average import adaptive_avg_pool, adaptive_avg_pool_backward
from .pool.adaptive_maximum import adaptive_max_pool, adaptive_max_pool_backward
from .pool.average import avg_pool, avg_pool_backward
from .pool.lp import lp_pool, lp_pool_backward
from .pool.maximum import max_pool, max_pool_backward
from .reshaping.pad import (
    pad_circular,
    pad_circular_backward,
    pad_constant,
    pad_constant_backward,
    pad_reflect,
    pad_reflect_backward,
    pad_replicate,
    pad_replicate_backward,
)
from .reshaping.pixel_shuffle import (
    pixel_shuffle,
    pixel_shuffle_backward,
    pixel_unshuffle,
    pixel_unshuffle_backward,
)
from .reshaping.upsample import upsample, upsample_backward, upsample_nearest, upsample_nearest_backward

__all__ = [
    "adaptive_avg_pool",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "adaptive_max_pool_backward",
    "attention",
    "attention_backward",
    "avg_pool",
    "avg_pool_backward",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "celu",
    "celu_backward",
    "clip",
    "clip_backward",
    "conv",
    "conv_backward",
    "conv_transpose",
    "conv_transpose_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dense",
    "dense_backward",
    "dice",
    "dice_backward",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "embedding",
    "embedding_backward",
    "erf",
    "erfc",
    "focal",
    "focal_backward",
    "gelu",
    "gelu_backward",
    "glu",
    "glu_backward",
    "group_norm",
    "group_norm_backward",
    "hard_shrink",
    "hard_shrink_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "hard_tanh",
    "hard_tanh_backward",
    "hardmax",
    "hardmax_backward",
    "huber",
    "huber_backward",
    "instance_norm",
    "instance_norm_backward",
    "kl_divergence",
    "kl_divergence_backward",
    "l1",
    "l1_backward",
    "l2",
    "l2_backward",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "log_softmax",
    "log_softmax_backward",
    "lp_pool",
    "lp_pool_backward",
    "mae",
    "mae_backward",
    "mape",
    "mape_backward",
    "max_pool",
    "max_pool_backward",
    "mish",
    "mish_backward",
    "mse",
    "mse_backward",
    "msle",
    "msle_backward",
    "nll",
    "nll_backward",
    "pad_circular",
    "pad_circular_backward",
    "pad_constant",
    "pad_constant_backward",
    "pad_reflect",
    "pad_reflect_backward",
    "pad_replicate",
    "pad_replicate_backward",
    "pixel_shuffle",
    "pixel_shuffle_backward",
    "pixel_unshuffle",
    "pixel_unshuffle_backward",
    "prelu",
    "prelu_backward",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "smooth_l1",
    "smooth_l1_backward",
    "soft_shrink",
    "soft_shrink_backward",
    "softmax",
    "softmax_backward",
    "softmin",
    "softmin_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "tanh",
    "tanh_backward",
    "tanh_shrink",
    "tanh_shrink_backward",
    "threshold",
    "threshold_backward",
    "upsample",
    "upsample_backward",
    "upsample_nearest",
    "upsample_nearest_backward",
]

for _name in __all__:
    globals()[_name] = in_numerics_of_arrays(globals()[_name], __name__)

# Type checkers would believe that a module with `__getattr__` has every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        """Say in the error what a function of PyTorch, or one that is misspelt, is called here."""
        names = [f"functional.{each}" for each in __all__]
        raise other_names.missing("xpnn.functional", name, other_names.FUNCTIONS, names)
