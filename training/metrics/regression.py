"""Metrics of predictions that are numbers: predictions and targets have one shape ``(N, ...)``."""

from math import nan, prod
from typing import Any

from ...backends import Backend
from ...common.types import Array
from ..optimizers.counters import widest
from .metric import Metric, Sums


class RegressionMetric(Metric):
    """Base of metrics of numbers."""

    def check(self, prediction: Array, target: Array) -> None:
        """Raise unless both have one shape: ``(N,)`` and ``(N, 1)`` would be broadcast to ``(N, N)``."""
        if tuple(prediction.shape) != tuple(target.shape):
            raise ValueError(
                f"metric {self.name} needs predictions and targets of one shape, got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}"
            )

    def _wide(self, prediction: Array, target: Array, b: Backend) -> tuple[Array, Array]:
        """Both in the widest float dtype."""
        self.check(prediction, target)
        return b.xp.astype(prediction, widest(b)), b.xp.astype(target, widest(b))


class MeanAbsoluteError(RegressionMetric):
    """``mean |prediction - target|`` over all entries; NaN without any."""

    mode = "min"

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """The sum of absolute errors, and the number of entries."""
        prediction, target = self._wide(prediction, target, b)
        return b.xp.sum(b.xp.abs(prediction - target)), float(prod(target.shape))

    def result(self, *sums: Any) -> Any:
        """The mean."""
        total, entries = map(float, sums)
        return total / entries if entries else nan


class R2(RegressionMetric):
    """The coefficient of determination, ``1 - sum (prediction - target)^2 / sum (target - mean target)^2``.

    With several outputs, ``(N, ...)``, it is averaged over these. For an output whose target is constant it is 1 if all
    predictions are right and else 0, and NaN with fewer than two samples, as in scikit-learn.

    The squares about the mean are merged batch by batch without cancellation.
    Source: T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance", 1983.
    """

    mode = "max"

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """Samples; and of each output the mean, the squares about it, and the squares of the errors."""
        prediction, target = self._wide(prediction, target, b)
        xp, samples = b.xp, int(target.shape[0])
        count = xp.full((), float(max(samples, 1)), dtype=target.dtype, device=b.device)
        # About the first sample, so that a constant target has no squares that are rounding.
        first = xp.sum(target[:1, ...], axis=0)
        mean = first + xp.sum(target - first, axis=0) / count
        deviation, error = target - mean, prediction - target
        squares, errors = xp.sum(deviation * deviation, axis=0), xp.sum(error * error, axis=0)
        return float(samples), mean, squares, errors

    def merge(self, total: Sums, part: Sums) -> Sums:
        """The squares about the common mean."""
        (n, mean, squares, errors), (m, other_mean, other_squares, other_errors) = total, part
        both = n + m
        difference = other_mean - mean
        weight = m / both if both else 0.0
        squares = squares + other_squares + difference * difference * (n * weight)
        return both, mean + difference * weight, squares, errors + other_errors

    def result(self, *sums: Any) -> Any:
        """The mean over outputs."""
        samples, _, squares, errors = sums
        if samples < 2.0:
            return nan
        shares = []
        for square, error in zip(_flat(squares), _flat(errors), strict=True):
            if square == 0.0:
                shares.append(0.0 if error != 0.0 else 1.0)
            else:
                shares.append(1.0 - error / square)
        return sum(shares) / len(shares) if shares else nan


def _flat(values: Any) -> list[float]:
    return list(values.reshape(-1).tolist()) if hasattr(values, "reshape") else [float(values)]
