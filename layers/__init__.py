"""Neural-network layers and losses, and the pure functions that they call."""

from . import functional, initialisers, models
from .activations import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Clip,
    Hardmax,
    HardShrink,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softmin,
    Softplus,
    SoftShrink,
    Softsign,
    Tanh,
    TanhShrink,
    Threshold,
)
from .containers import (
    Add,
    Checkpointed,
    Concat,
    Container,
    Graph,
    Identity,
    Multiply,
    Parallel,
    PerInput,
    Residual,
    Sequential,
)
from .convolution.conv import Conv1d, Conv2d, Conv3d
from .convolution.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .core.grad_mode import enable_grad, is_grad_enabled, no_grad
from .core.layer import Layer
from .core.layer_outputs import layer_outputs
from .core.parameter import Parameter
from .core.release_after_backward import released
from .dense import Dense
from .dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from .embedding import Embedding, PositionEmbedding
from .losses import (
    L1,
    L2,
    MAE,
    MAPE,
    MSE,
    MSLE,
    NLL,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    Dice,
    Focal,
    Huber,
    KLDivergence,
    Loss,
    SmoothL1,
)
from .multi_head_attention import MultiHeadAttention
from .normalisation import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from .pool import (
    AdaptiveAvgPool,
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    GlobalLpPool,
    GlobalMaxPool,
    LpPool1d,
    LpPool2d,
    LpPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from .reshaping import Flatten, Pad, Permute, PixelShuffle, PixelUnshuffle, Reshape, Upsample

# The base class, parameters, and what is done with a whole model.
__all__ = ["Layer", "Parameter", "enable_grad", "is_grad_enabled", "layer_outputs", "no_grad", "released"]

# Layers that consist of layers.
__all__ += ["Checkpointed", "Container", "Graph", "Identity", "Parallel", "PerInput", "Residual", "Sequential"]

# Layers of several inputs.
__all__ += ["Add", "Concat", "Multiply"]

# Fully connected, embeddings, attention.
__all__ += ["Dense", "Embedding", "MultiHeadAttention", "PositionEmbedding"]

# Convolution.
__all__ += ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

# Pooling.
__all__ += ["AvgPool1d", "AvgPool2d", "AvgPool3d"]
__all__ += ["LpPool1d", "LpPool2d", "LpPool3d"]
__all__ += ["MaxPool1d", "MaxPool2d", "MaxPool3d"]
__all__ += ["AdaptiveAvgPool", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"]
__all__ += ["AdaptiveMaxPool", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"]
__all__ += ["GlobalAvgPool", "GlobalLpPool", "GlobalMaxPool"]

# Normalisation.
__all__ += ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
__all__ += ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]
__all__ += ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]

# Dropout.
__all__ += ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]

# Activations.
__all__ += ["CELU", "ELU", "GELU", "SELU", "LeakyReLU", "Mish", "PReLU", "ReLU", "SiLU", "Softplus"]
__all__ += ["GLU", "HardSigmoid", "HardSwish", "LogSigmoid", "Sigmoid", "Softsign", "Tanh"]
__all__ += ["Clip", "HardShrink", "HardTanh", "ReLU6", "SoftShrink", "TanhShrink", "Threshold"]
__all__ += ["Hardmax", "LogSoftmax", "Softmax", "Softmin"]

# Reshaping, padding, upsampling.
__all__ += ["Flatten", "Pad", "Permute", "PixelShuffle", "PixelUnshuffle", "Reshape", "Upsample"]

# Losses.
__all__ += ["Loss"]
__all__ += ["NLL", "BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "CrossEntropy", "Dice", "Focal"]
__all__ += ["L1", "L2", "MAE", "MAPE", "MSE", "MSLE", "Huber", "KLDivergence", "SmoothL1"]

# Modules.
__all__ += ["functional", "initialisers", "models"]
