"""Losses and their gradients."""

from .base import Loss
from .classification import CrossEntropy
from .regression import MeanSquaredError

__all__ = ["CrossEntropy", "Loss", "MeanSquaredError"]
