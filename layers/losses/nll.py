"""The negative log-likelihood of classes, and how a target that is a class is looked up.

A target y is a class for each of ``(N, ...)``, an integer. It counts with the weight ``w_y`` of its class; one equal to
``ignore_index`` counts nothing, in the mean neither.
"""

from math import nan, prod
from typing import Any, ClassVar, Unpack

from array_api_compat import device

from ...backends import backend_of, operations_of
from ...backends.execution.team import current_team
from ...backends.inputs import describe
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.arrays import namespace, require_same_dtype, require_shape, scalar, zero
from ..core.placement import Placement
from .base import Loss, Reduction, reduce, spread
from .weights import Weights

CONVERT = "convert it with target.astype('int64')"


@without_graph
def nll(
    log_p: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """Negative log-likelihood of classes, ``-w_y log p_y``, given the logarithms of their probabilities.

    Parameters
    ----------
    log_p : array
        ``(N, C, ...)``, float32 or float64.
    target : array
        Classes ``0 .. C-1``, integer, ``(N, ...)``.
    weight : array, optional
        w, ``(C,)``, of the dtype of ``log_p``; ones unless given.
    ignore_index : int
        The target that counts nothing: its loss and gradient are 0.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of ``w_y``; NaN where that is 0, as where all targets are ignored.

    Returns
    -------
    array
        0-d, or ``(N, ...)`` without reduction. A target that is no class and is not ignored gives NaN.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.
    """
    xp = namespace(xp, ("weight",), **{"log-probabilities": log_p, "target": target, "weight": weight})
    ignore_index = checks.integer("ignore_index", ignore_index)
    is_classes(log_p, target, weight, "log-probabilities", probabilities=False)
    index, _, share = wanted(log_p, target, weight, ignore_index, xp)
    return reduce(picked(log_p, index, share, xp), reduction, xp, count=xp.sum(share))


@without_graph
def nll_backward(
    dy: Array | float,
    log_p: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``-w_y dy`` at the class y, 0 at the others."""
    xp = namespace(xp, ("weight",), **{"log-probabilities": log_p, "target": target, "weight": weight})
    ignore_index = checks.integer("ignore_index", ignore_index)
    is_classes(log_p, target, weight, "log-probabilities", probabilities=False)
    index, _, share = wanted(log_p, target, weight, ignore_index, xp)
    slopes = -share * one_hot(log_p, index, xp)
    return spread(slopes, dy, reduction, xp, shape=tuple(target.shape), count=xp.sum(share))


def is_classes(scores: Array, target: Array, weight: Array | None, what: str, *, probabilities: bool = True) -> bool:
    """Whether the target is classes (or probabilities), after checking that all fits the scores."""
    require_same_dtype(**{what: scores, "weight": weight})
    if scores.ndim < 2:
        raise ValueError(f"{what} need shape (N, C, ...), got {tuple(scores.shape)}")
    if scores.shape[1] == 0:
        raise ValueError(f"axis 1 of {what} of shape {tuple(scores.shape)} is empty: there are no classes")
    if weight is not None:
        require_shape(weight, (scores.shape[1],), "weight of classes")
    if dtype_name(target.dtype).startswith(("int", "uint")):
        require_shape(target, (scores.shape[0], *scores.shape[2:]), "target of classes")
        return True
    if not probabilities:
        raise TypeError(f"target must be classes, an array of integers, got {describe(target)}; {CONVERT}")
    if dtype_name(target.dtype) == "bool":
        raise TypeError(
            f"target must be classes, an array of integers, or probabilities, of the dtype of the {what}; got "
            f"{describe(target)}; {CONVERT}, or for a yes or no of its own in each entry take "
            "BinaryCrossEntropyWithLogits with floats"
        )
    if target.ndim == scores.ndim - 1:
        raise TypeError(
            f"target must be classes, an array of integers {(scores.shape[0], *scores.shape[2:])}, or probabilities, "
            f"{tuple(scores.shape)}; got {describe(target)}; {CONVERT}"
        )
    require_same_dtype(**{what: scores, "target": target})
    require_shape(target, tuple(scores.shape), "target of probabilities")
    return False


def can_hold(target: Array, value: int, xp: Namespace) -> bool:
    """Whether an integer is in the range of an integer array's dtype."""
    limits = xp.iinfo(target.dtype)
    return int(limits.min) <= value <= int(limits.max)


def are_plain(target: Array, classes: int, ignore_index: int, xp: Namespace) -> bool:
    """Whether it is known that all targets are classes and none is ignored.

    Known where reading is cheap; and not in a team, whose workers must all go the same way.
    """
    ops = operations_of(xp)
    if not ops.reads or not ops.free_order or current_team() is not None or not prod(target.shape):
        return False
    low, high = int(xp.min(target)), int(xp.max(target))
    return low >= 0 and high < classes and not low <= ignore_index <= high


def wanted(
    scores: Array, target: Array, weight: Array | None, ignore_index: int, xp: Namespace
) -> tuple[Array, Array, Array]:
    """``(N, 1, ...)``: the targets as an index, whether they count, and how much: 0 if ignored, NaN if no class."""
    index = xp.expand_dims(xp.astype(target, xp.int64), axis=1)
    kept = index != ignore_index
    inside = xp.logical_and(index >= 0, index < scores.shape[1])
    index = xp.where(inside, index, xp.zeros_like(index))
    if weight is None:
        share = scalar(1.0, scores, xp)
    else:
        share = xp.reshape(xp.take(weight, xp.reshape(index, (-1,)), axis=0), index.shape)
    share = xp.where(inside, share, scalar(nan, scores, xp))
    return index, kept, xp.where(kept, share, zero(scores, xp))


def picked(log_p: Array, index: Array, share: Array, xp: Namespace) -> Array:
    """``-w_y log p_y``, ``(N, ...)``; 0 where the share is."""
    losses = -xp.take_along_axis(log_p, index, axis=1)
    return (xp.where(share == 0.0, share, losses) * share)[:, 0, ...]


def one_hot(scores: Array, index: Array, xp: Namespace) -> Array:
    """``[c = y]``, of the scores' shape."""
    classes = xp.arange(scores.shape[1], dtype=index.dtype, device=device(scores))
    return xp.astype(along_classes(classes, scores, xp) == index, scores.dtype)


def along_classes(vector: Array, scores: Array, xp: Namespace) -> Array:
    """``(C,)`` as ``(1, C, 1, ...)``."""
    return xp.reshape(vector, (1, -1, *(1,) * (scores.ndim - 2)))


class ClassLoss(Loss):
    """Base of the losses of classes.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like, optional
        Of each class, ``(C,)``: on the host or an array of any backend, copied to the prediction's once.
    ignore_index : int
        The target that counts nothing.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For a class out of range, where the device is the CPU. On a GPU looking would mean waiting for it; there the
        loss is NaN.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("reduction", "mean"), ("weight", None), ("ignore_index", -100))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        weight: Any = None,
        ignore_index: int = -100,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, **placement)
        self.weight = Weights.given(weight, "weight")
        self.ignore_index = checks.integer("ignore_index", ignore_index)

    def _forward(self, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        value = super()._forward(prediction, target, xp, **options)
        if dtype_name(target.dtype).startswith(("int", "uint")) and prod(target.shape) and backend_of(target).is_host:
            self._check_range(xp.astype(target, xp.int64), prediction.shape[1], xp)
        return value

    def terms(self, prediction: Array, target: Array) -> Array:
        """The number of targets, each class counted by its weight and none that is ignored."""
        if not dtype_name(target.dtype).startswith(("int", "uint")):
            return self._number(float(prod(target.shape) // prediction.shape[1]), prediction, target)
        b = self._place(prediction, target)
        with b.context():
            options = self._options(b, prediction)
            share = wanted(b.up(prediction), target, options["weight"], self.ignore_index, b.xp)[2]
            return b.down(b.xp.sum(share))

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """As `terms`."""
        if not dtype_name(target.dtype).startswith(("int", "uint")):
            return float(prod(target.shape) // prediction.shape[1])
        if self.weight is not None:
            return self.terms(prediction, target)
        b = self._place(prediction, target)
        if none_ignored or not can_hold(target, self.ignore_index, b.xp):
            return float(prod(target.shape))
        with b.context():
            return b.xp.count_nonzero(target != self.ignore_index)

    def _check_range(self, index: Array, classes: int, xp: Namespace) -> None:
        low, high = int(xp.min(index)), int(xp.max(index))
        if low >= 0 and high < classes:
            return
        ignored = index == self.ignore_index
        index = xp.where(ignored, xp.zeros_like(index), index)
        low, high = int(xp.min(index)), int(xp.max(index))
        if low >= 0 and high < classes:
            return
        # The zeros put in above are no targets: what is out of range takes their place before the range is told.
        index = xp.where(ignored, xp.full_like(index, low if low < 0 else high), index)
        low, high = int(xp.min(index)), int(xp.max(index))
        raise ValueError(
            f"targets run from {low} to {high}, classes from 0 to {classes - 1} (ignore_index is {self.ignore_index})"
        )


class NLL(ClassLoss):
    """Negative log-likelihood of classes given log-probabilities; see `ClassLoss` and `nll`."""

    function = staticmethod(nll)
    gradient = staticmethod(nll_backward)
