"""Losses and their gradients."""

from .base import Loss
from .binary import BinaryCrossEntropy, BinaryCrossEntropyWithLogits
from .classification import CrossEntropy
from .divergence import KLDivergence
from .nll import NLL
from .regression import (
    L1,
    L2,
    MAE,
    MAPE,
    MSE,
    MSLE,
)
from .robust import Huber, SmoothL1

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
    "Huber",
    "KLDivergence",
    "Loss",
    "SmoothL1",
]
