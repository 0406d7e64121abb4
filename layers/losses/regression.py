"""Losses of numbers: differences between a prediction p and a target t of the same shape and dtype.

Nothing is broadcast: the functions raise `ValueError` for two shapes, `TypeError` for two dtypes or integers. The
gradients are those with respect to p, times ``dy``, which for the mean is divided by the number of entries.
"""

from math import inf, nan
from typing import Unpack

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace, dtype_name
from ..core.elementwise import scalar, sign
from ..core.placement import Placement
from .base import Loss, Reduction, paired, reduce, spread

SMALLEST = 1e-7
LARGEST = {"float32": 2.0**128 - 2.0**104, "float64": 2.0**1023 * (2.0 - 2.0**-52)}


@without_graph
def mean_squared_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``(p - t)^2``, its mean over all entries, its sum, or each."""
    xp = paired(xp, prediction, target)
    difference = prediction - target
    return reduce(difference * difference, reduction, xp)


@without_graph
def mean_squared_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (p - t) dy``."""
    xp = paired(xp, prediction, target)
    return spread(2.0 * (prediction - target), dy, reduction, xp)


@without_graph
def l2(prediction: Array, target: Array, *, reduction: Reduction = "sum", xp: Namespace | None = None) -> Array:
    """`mean_squared_error` that is summed unless said otherwise: the square of the Euclidean distance."""
    return mean_squared_error(prediction, target, reduction=reduction, xp=xp)


@without_graph
def l2_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "sum", xp: Namespace | None = None
) -> Array:
    """``2 (p - t) dy``."""
    return mean_squared_error_backward(dy, prediction, target, reduction=reduction, xp=xp)


@without_graph
def mean_absolute_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``|p - t|``, its mean over all entries, its sum, or each."""
    xp = paired(xp, prediction, target)
    return reduce(xp.abs(prediction - target), reduction, xp)


@without_graph
def mean_absolute_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``sign(p - t) dy``, which is 0 where they are equal."""
    xp = paired(xp, prediction, target)
    return spread(sign(prediction - target, xp), dy, reduction, xp)


l1, l1_backward = mean_absolute_error, mean_absolute_error_backward


@without_graph
def mean_squared_log_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``(log(1 + p) - log(1 + t))^2``; entries below -1 give NaN."""
    xp = paired(xp, prediction, target)
    difference = xp.log1p(prediction) - xp.log1p(target)
    return reduce(difference * difference, reduction, xp)


@without_graph
def mean_squared_log_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (log(1 + p) - log(1 + t)) / (1 + p) dy``, which is 0 for an infinite p."""
    xp = paired(xp, prediction, target)
    # Of an infinite p the slope is 0, which infinity over infinity does not tell.
    difference = xp.log1p(xp.minimum(prediction, LARGEST[dtype_name(prediction.dtype)])) - xp.log1p(target)
    return spread(2.0 * difference / (1.0 + prediction), dy, reduction, xp)


@without_graph
def mean_absolute_percentage_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``100 |p - t| / max(|t|, 1e-7)``, in percent of the target.

    The bound, which keeps a target of 0 from a division by 0, is that of Keras (`keras.losses`).
    """
    xp = paired(xp, prediction, target)
    size = _size(target, xp)
    infinite, one = size == inf, scalar(1.0, size, xp)
    # Of an infinite target a finite p is 100 % away, and another is no part of it.
    whole = xp.where(xp.isfinite(prediction), one, scalar(nan, size, xp))
    apart = xp.where(infinite, whole, xp.abs(prediction - target))
    return reduce(100.0 * (apart / xp.where(infinite, one, size)), reduction, xp)


@without_graph
def mean_absolute_percentage_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``100 sign(p - t) / max(|t|, 1e-7) dy``, which is 0 where they are equal."""
    xp = paired(xp, prediction, target)
    return spread(100.0 * sign(prediction - target, xp) / _size(target, xp), dy, reduction, xp)


def clip(x: Array, threshold: float, bound: float, xp: Namespace) -> Array:
    """``bound`` with x's sign where ``|x|`` exceeds the threshold, x elsewhere: NaN stays."""
    high = scalar(bound, x, xp)
    return xp.where(x > threshold, high, xp.where(x < -threshold, -high, x))


def _size(target: Array, xp: Namespace) -> Array:
    """``max(|t|, 1e-7)``; NaN stays."""
    size = xp.abs(target)
    return xp.where(size < SMALLEST, scalar(SMALLEST, target, xp), size)


class MeanSquaredError(Loss):
    """Mean of the squared differences; see `mean_squared_error`."""

    function = staticmethod(mean_squared_error)
    gradient = staticmethod(mean_squared_error_backward)


class L2(Loss):
    """Sum of the squared differences; see `l2`."""

    function = staticmethod(l2)
    gradient = staticmethod(l2_backward)
    signature = (("reduction", "sum"),)

    def __init__(self, reduction: Reduction = "sum", **placement: Unpack[Placement]) -> None:
        super().__init__(reduction, **placement)


class MeanAbsoluteError(Loss):
    """Mean of the absolute differences; see `mean_absolute_error`."""

    function = staticmethod(mean_absolute_error)
    gradient = staticmethod(mean_absolute_error_backward)


class L1(MeanAbsoluteError):
    """`MeanAbsoluteError` under its other name."""


class MeanSquaredLogError(Loss):
    """Mean of the squared differences of logarithms, for sizes that differ widely; see `mean_squared_log_error`."""

    function = staticmethod(mean_squared_log_error)
    gradient = staticmethod(mean_squared_log_error_backward)


class MeanAbsolutePercentageError(Loss):
    """Mean of the differences in percent of the target; see `mean_absolute_percentage_error`."""

    function = staticmethod(mean_absolute_percentage_error)
    gradient = staticmethod(mean_absolute_percentage_error_backward)


MSE = MeanSquaredError
MAE = MeanAbsoluteError
MSLE = MeanSquaredLogError
MAPE = MeanAbsolutePercentageError
