"""Metrics of predictions that are scores of classes: predictions ``(N, C, ...)``, targets ``(N, ...)``.

The predicted class is the first one of the highest score. A target that is ``ignore_index`` counts nowhere.
"""

from math import nan, prod
from typing import Any, ClassVar, Self

from array_api_compat import device

from ...backends import Backend, operations_of
from ...common import checks
from ...common.types import Array, dtype_name, is_integer_dtype
from ...layers.losses import Loss
from ...layers.losses.class_targets import can_hold
from .metric import Metric, Sums, with_setting


class ClassMetric(Metric):
    """Base of metrics of classes.

    Parameters
    ----------
    ignore_index : int, optional
        Targets of this class do not count. Unless given, those do not count that the loss of `fit` or `evaluate`
        ignores.
    name : str, optional
        As for `Metric`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("ignore_index", None),)

    def __init__(self, *, ignore_index: int | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self.ignore_index = None if ignore_index is None else checks.integer("ignore_index", ignore_index)

    def for_loss(self, loss: Loss) -> Self:
        """With the loss's ``ignore_index``, if there is none of its own."""
        ignored = getattr(loss, "ignore_index", None)
        if self.ignore_index is not None or ignored is None:
            return self
        found: Self = with_setting(self, ignore_index=ignored)
        return found

    def check(self, prediction: Array, target: Array) -> None:
        """Raise unless targets are classes and predictions scores of at least two."""
        shape, wanted = tuple(target.shape), (int(prediction.shape[0]), *prediction.shape[2:])
        if not is_integer_dtype(target.dtype) or prediction.ndim < 2 or shape != wanted:
            raise ValueError(
                f"metric {self.name} needs predictions (N, C, ...), scores of C classes, and targets (N, ...), "
                f"integers; got {tuple(prediction.shape)} and {dtype_name(target.dtype)} {shape}"
            )
        if prediction.shape[1] < 2:
            raise ValueError(
                f"metric {self.name} needs scores of at least two classes, got predictions {tuple(prediction.shape)}; "
                "for yes or no pass a function of (prediction, target)"
            )

    def _counts(self, target: Array, xp: Any) -> Array | None:
        """Which targets count; None if all do."""
        ignored = self.ignore_index
        return None if ignored is None or not can_hold(target, ignored, xp) else target != ignored


class Accuracy(ClassMetric):
    """The share of targets among the ``top`` highest scores; NaN without targets.

    Of equal scores the one of the smaller class counts as higher, and NaN as the highest, as for ``argmax``.

    Parameters
    ----------
    ignore_index, name
        As for `ClassMetric`.
    top : int
        At least 1.
    """

    mode = "max"
    signature = (("ignore_index", None), ("top", 1))

    def __init__(self, *, ignore_index: int | None = None, top: int = 1, name: str | None = None) -> None:
        super().__init__(ignore_index=ignore_index, name=name)
        self.top = checks.integer("top", top, 1)

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """Targets that were predicted correctly, and all that count."""
        self.check(prediction, target)
        xp, counts = b.xp, self._counts(target, b.xp)
        hits = _hits(prediction, target, self.top, xp)
        if counts is None:
            return xp.count_nonzero(hits), prod(target.shape)
        return xp.count_nonzero(xp.logical_and(hits, counts)), xp.count_nonzero(counts)

    def result(self, *sums: Any) -> Any:
        """The share."""
        correct, targets = map(int, sums)
        return correct / targets if targets else nan


def _hits(prediction: Array, target: Array, top: int, xp: Any) -> Array:
    """Where the target is among the highest scores, ``(N, ...)``."""
    if top == 1:
        return xp.astype(xp.argmax(prediction, axis=1), target.dtype) == target
    classes = int(prediction.shape[1])
    index = xp.expand_dims(xp.astype(target, xp.int64), axis=1)
    is_class = xp.logical_and(index >= 0, index < classes)
    index = xp.where(is_class, index, xp.zeros_like(index))
    own = xp.take_along_axis(prediction, index, axis=1)
    nans, own_nan = xp.isnan(prediction), xp.isnan(own)
    above = xp.logical_or(prediction > own, xp.logical_and(nans, xp.logical_not(own_nan)))
    # NaN is above all numbers; where the target's own score is NaN, only other NaNs can be above it.
    equal = xp.logical_or(prediction == own, xp.logical_and(nans, own_nan))
    numbers = xp.reshape(xp.arange(classes, device=device(index)), (1, classes, *(1,) * (prediction.ndim - 2)))
    above = xp.logical_or(above, xp.logical_and(equal, numbers < index))
    rank = xp.sum(xp.astype(above, xp.int64), axis=1)
    return xp.logical_and(rank < top, is_class[:, 0, ...])


class ConfusionMatrix(ClassMetric):
    """Counts ``(num_classes, num_classes)`` of targets by true class (row) and predicted class (column).

    The result is an integer NumPy array, in a history nested lists. Targets that are no class do not count.

    Parameters
    ----------
    num_classes : int
        The number of classes that the model predicts.
    ignore_index, name
        As for `ClassMetric`.
    """

    is_number: ClassVar[bool] = False
    signature = (("num_classes", ...), ("ignore_index", None))

    def __init__(self, num_classes: int, *, ignore_index: int | None = None, name: str | None = None) -> None:
        super().__init__(ignore_index=ignore_index, name=name)
        self.num_classes = checks.integer("num_classes", num_classes, 1)

    def check(self, prediction: Array, target: Array) -> None:
        """Raise unless predictions are scores of ``num_classes`` classes."""
        super().check(prediction, target)
        if prediction.shape[1] != self.num_classes:
            raise ValueError(
                f"metric {self.name}: the model predicts {prediction.shape[1]} classes, num_classes is "
                f"{self.num_classes}"
            )

    def sums(self, prediction: Array, target: Array, b: Backend) -> Sums:
        """The matrix of the batch."""
        self.check(prediction, target)
        xp, n = b.xp, self.num_classes
        true, predicted = xp.astype(target, xp.int64), xp.argmax(prediction, axis=1)
        counts, inside = self._counts(target, xp), xp.logical_and(true >= 0, true < n)
        inside = inside if counts is None else xp.logical_and(inside, counts)
        # Class n is none: its row is left out.
        return (operations_of(xp).count_pairs(xp.where(inside, true, xp.full_like(true, n)), predicted, n),)

    def result(self, *sums: Any) -> Any:
        """The matrix."""
        return sums[0]


class IoU(ConfusionMatrix):
    """Intersection over union of each class, averaged over the classes that occur in targets or predictions.

    Of class c it is ``t_c / (t_c + f_c + m_c)``, where t counts the targets of the class that were predicted as such, f
    those of other classes that were predicted as c, and m those of c that were predicted as another. NaN without
    targets.

    Parameters
    ----------
    num_classes, ignore_index, name
        As for `ConfusionMatrix`.
    """

    mode = "max"
    is_number: ClassVar[bool] = True

    def result(self, *sums: Any) -> Any:
        """The mean over classes."""
        shares = [share for share in self.by_class(sums[0]) if share == share]
        return sum(shares) / len(shares) if shares else nan

    def by_class(self, matrix: Any) -> list[float]:
        """Of each class, from a confusion matrix; NaN for a class that does not occur."""
        rows: list[list[int]] = matrix.tolist()
        found = []
        for number, row in enumerate(rows):
            union = sum(row) + sum(other[number] for other in rows) - row[number]
            found.append(row[number] / union if union else nan)
        return found
