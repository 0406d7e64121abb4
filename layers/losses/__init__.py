"""Losses and their gradients."""

from .base import Loss
from .binary_cross_entropy import BinaryCrossEntropy, BinaryCrossEntropyWithLogits
from .cross_entropy import CrossEntropy
from .dice import Dice
from .focal import Focal
from .huber import Huber, SmoothL1
from .kl_divergence import KLDivergence
from .nll import NLL
from .regression import (
    L1,
    L2,
    MAE,
    MAPE,
    MSE,
    MSLE,
)

__all__ = [
    "L1",
    "L2",
    "MAE",
    "MAPE",
    "MSE",
    "MSLE",
    "NLL",
    "BinaryCrossEntropy",
    "BinaryCrossEntropyWithLogits",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Huber",
    "KLDivergence",
    "Loss",
    "SmoothL1",
]
