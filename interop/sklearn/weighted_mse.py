"""The mean squared error of samples with weights, ``mean w_n (p_nk - t_nk)^2`` over samples n and outputs k.

A target is ``(N, K + 1)``: the K numbers of each sample, and its weight in the last column, so that one array holds all
that `fit` passes to a loss.
"""

from math import prod

from ...common.types import Array, Namespace
from ...layers.losses import Loss
from ...layers.losses.base import Reduction, reduce, spread


def weighted_mse(prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace) -> Array:
    """``w (p - t)^2``, its mean over all entries, its sum, or each."""
    difference = prediction - target[:, :-1]
    return reduce(target[:, -1:] * (difference * difference), reduction, xp)


def weighted_mse_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace
) -> Array:
    """``2 w (p - t) dy``."""
    return spread(2.0 * target[:, -1:] * (prediction - target[:, :-1]), dy, reduction, xp)


class WeightedMSE(Loss):
    """Mean of the squared differences, each times the weight of its sample.

    Predictions are ``(N, K)``, targets ``(N, K + 1)`` with the weights in the last column. The mean is over N K
    numbers, whatever the weights are: with weights of mean 1 it is the weighted mean.
    """

    function = staticmethod(weighted_mse)
    gradient = staticmethod(weighted_mse_backward)

    def terms(self, prediction: Array, target: Array) -> Array:
        """The number of entries, without the column of weights."""
        return self._number(self.counted(prediction, target), prediction, target)

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> float:
        """As `terms`."""
        samples, columns = target.shape
        return float(prod((samples, columns - 1)))
