"""Losses of regression: means and sums of differences between a prediction p and a target t.

========  ==================================  =====================
loss      value                               reduction
========  ==================================  =====================
MSE       ``(p - t)^2``                       mean, sum or none
MAE       ``|p - t|``                         mean, sum or none
L2        ``sum (p - t)^2``                   sum, by definition
L1        ``sum |p - t|``                     sum, by definition
MSLE      ``(log(1 + p) - log(1 + t))^2``     mean, sum or none
MAPE      ``100 |p - t| / |t|``               mean, sum or none
========  ==================================  =====================

Both arrays must have one shape and dtype, since nothing is broadcast: the functions raise `ValueError` for two shapes,
`TypeError` for two dtypes or integers. Gradients are with respect to p and multiplied by ``dy``, which for the mean is
divided by the number of entries.
"""

from math import inf, nan
from typing import Any, ClassVar, Never, Unpack

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace, dtype_name
from ..core.elementwise import scalar, sign
from ..core.placement import Placement
from .base import Loss, Reduction, paired, reduce, spread

# Lower bound of |t| in a percentage, as in Keras.
SMALLEST_TARGET = 1e-7
LARGEST_FINITE = {"float32": 2.0**128 - 2.0**104, "float64": 2.0**1023 * (2.0 - 2.0**-52)}


@without_graph
def mse(prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None) -> Array:
    """``(p - t)^2``, its mean over all entries, its sum, or each."""
    xp = paired(xp, prediction, target)
    difference = prediction - target
    return reduce(difference * difference, reduction, xp)


@without_graph
def mse_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (p - t) dy``."""
    xp = paired(xp, prediction, target)
    return spread(2.0 * (prediction - target), dy, reduction, xp)


@without_graph
def mae(prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None) -> Array:
    """``|p - t|``, its mean over all entries, its sum, or each."""
    xp = paired(xp, prediction, target)
    return reduce(xp.abs(prediction - target), reduction, xp)


@without_graph
def mae_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``sign(p - t) dy``, which is 0 where they are equal."""
    xp = paired(xp, prediction, target)
    return spread(sign(prediction - target, xp), dy, reduction, xp)


@without_graph
def l1(prediction: Array, target: Array, *, xp: Namespace | None = None) -> Array:
    """``sum |p - t|`` over all entries, the L1 norm of the difference."""
    return mae(prediction, target, reduction="sum", xp=xp)


@without_graph
def l1_backward(dy: Array | float, prediction: Array, target: Array, *, xp: Namespace | None = None) -> Array:
    """``sign(p - t) dy``, which is 0 where they are equal."""
    return mae_backward(dy, prediction, target, reduction="sum", xp=xp)


@without_graph
def l2(prediction: Array, target: Array, *, xp: Namespace | None = None) -> Array:
    """``sum (p - t)^2`` over all entries, the square of the L2 norm of the difference."""
    return mse(prediction, target, reduction="sum", xp=xp)


@without_graph
def l2_backward(dy: Array | float, prediction: Array, target: Array, *, xp: Namespace | None = None) -> Array:
    """``2 (p - t) dy``."""
    return mse_backward(dy, prediction, target, reduction="sum", xp=xp)


@without_graph
def msle(prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None) -> Array:
    """``(log(1 + p) - log(1 + t))^2``; entries below -1 give NaN."""
    xp = paired(xp, prediction, target)
    difference = xp.log1p(prediction) - xp.log1p(target)
    return reduce(difference * difference, reduction, xp)


@without_graph
def msle_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (log(1 + p) - log(1 + t)) / (1 + p) dy``, which is 0 for an infinite p."""
    xp = paired(xp, prediction, target)
    # For an infinite p the slope is 0; infinity divided by infinity would be NaN.
    difference = xp.log1p(xp.minimum(prediction, LARGEST_FINITE[dtype_name(prediction.dtype)])) - xp.log1p(target)
    return spread(2.0 * difference / (1.0 + prediction), dy, reduction, xp)


@without_graph
def mape(prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None) -> Array:
    """``100 |p - t| / max(|t|, 1e-7)``, in percent of the target.

    The bound, which keeps a target of 0 from a division by 0, is that of Keras (`keras.losses`).
    """
    xp = paired(xp, prediction, target)
    size = _size(target, xp)
    infinite, one = size == inf, scalar(1.0, size, xp)
    # For an infinite target the error of a finite p is 100 %, and that of any other p is NaN.
    error = xp.where(xp.isfinite(prediction), one, scalar(nan, size, xp))
    error = xp.where(infinite, error, xp.abs(prediction - target))
    return reduce(100.0 * (error / xp.where(infinite, one, size)), reduction, xp)


@without_graph
def mape_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``100 sign(p - t) / max(|t|, 1e-7) dy``, which is 0 where they are equal."""
    xp = paired(xp, prediction, target)
    return spread(100.0 * sign(prediction - target, xp) / _size(target, xp), dy, reduction, xp)


def clip(x: Array, threshold: float, bound: float, xp: Namespace) -> Array:
    """``bound`` with the sign of x where ``|x|`` exceeds the threshold, x elsewhere; NaN for NaN."""
    high = scalar(bound, x, xp)
    return xp.where(x > threshold, high, xp.where(x < -threshold, -high, x))


def _size(target: Array, xp: Namespace) -> Array:
    """``max(|t|, 1e-7)``; NaN for NaN."""
    size = xp.abs(target)
    return xp.where(size < SMALLEST_TARGET, scalar(SMALLEST_TARGET, target, xp), size)


class MSE(Loss):
    """Mean of the squared differences; see `mse`."""

    function = staticmethod(mse)
    gradient = staticmethod(mse_backward)


class MAE(Loss):
    """Mean of the absolute differences, PyTorch's ``L1Loss``; see `mae`."""

    function = staticmethod(mae)
    gradient = staticmethod(mae_backward)


class SumLoss(Loss):
    """Base of the losses that are sums by definition and have no reduction; `mean` is the loss that has one."""

    signature = ()
    mean: ClassVar[type[Loss]]

    # Nothing is accepted by position; ``*reduction`` is there for the message.
    def __init__(self, *reduction: Never, **placement: Unpack[Placement]) -> None:
        if reduction or "reduction" in placement:
            name = type(self).__name__
            raise TypeError(f"{name} is a sum and has no reduction; use {self.mean.__name__}(reduction=...) instead")
        super().__init__("sum", **placement)

    def _forward(self, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        return type(self).function(prediction, target, xp=xp)

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        return type(self).gradient(dy, prediction, target, xp=xp)


class L1(SumLoss):
    """Sum of the absolute differences, ``sum |p - t|``; see `l1`.

    It has no ``reduction``: the mean and the single differences are `MAE`'s, which is also PyTorch's ``L1Loss``. The
    gradient grows with the number of entries; `fit` accepts means only.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(l1)
    gradient = staticmethod(l1_backward)
    mean = MAE


class L2(SumLoss):
    """Sum of the squared differences, ``sum (p - t)^2``; see `l2`.

    It has no ``reduction``: the mean and the single squares are `MSE`'s. No root is taken. The gradient grows with the
    number of entries; `fit` accepts means only.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(l2)
    gradient = staticmethod(l2_backward)
    mean = MSE


class MSLE(Loss):
    """Mean of the squared differences of logarithms, for sizes that differ widely; see `msle`."""

    function = staticmethod(msle)
    gradient = staticmethod(msle_backward)


class MAPE(Loss):
    """Mean of the absolute differences in percent of the target; see `mape`."""

    function = staticmethod(mape)
    gradient = staticmethod(mape_backward)
