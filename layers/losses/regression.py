"""Losses of numbers: differences between a prediction and a target of the same shape."""

from math import prod

from ...backends.types import Array, Namespace
from ..arrays import namespace, scalar
from .base import Loss, Reduction, check_pair, reduce


def mean_squared_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``(prediction - target)^2``, its mean over all entries, its sum, or each.

    Shapes and dtypes of the two are the same; nothing is broadcast.
    """
    xp = namespace(xp, prediction, target)
    check_pair(prediction, target)
    difference = prediction - target
    return reduce(difference * difference, reduction, xp)


def mean_squared_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (prediction - target) dy``, divided by the number of entries for the mean."""
    xp = namespace(xp, prediction, target)
    check_pair(prediction, target)
    gradient = 2.0 * (prediction - target) * dy
    return gradient / scalar(prod(prediction.shape), prediction, xp) if reduction == "mean" else gradient


class MeanSquaredError(Loss):
    """Mean of the squared differences; see `mean_squared_error`."""

    def _forward(self, prediction: Array, target: Array, xp: Namespace) -> Array:
        return mean_squared_error(prediction, target, reduction=self.reduction, xp=xp)

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace) -> Array:
        return mean_squared_error_backward(dy, prediction, target, reduction=self.reduction, xp=xp)
