"""The negative log-likelihood of classes; its targets are those of `class_targets`."""

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace
from .base import Reduction, reduce, spread
from .class_loss import ClassLoss
from .class_targets import has_classes, one_hot, target_shares, weighted_nll


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
        Targets of this class are ignored: their loss and gradient are 0.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of ``w_y`` of the targets that are not ignored; it is NaN if that is 0.

    Returns
    -------
    array
        0-d, or ``(N, ...)`` without reduction. The loss of a target that is no class and is not ignored is NaN.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.
    """
    xp = namespace(xp, ("weight",), **{"log-probabilities": log_p, "target": target, "weight": weight})
    ignore_index = checks.integer("ignore_index", ignore_index)
    has_classes(log_p, target, weight, "log-probabilities", probabilities=False)
    index, _, share = target_shares(log_p, target, weight, ignore_index, xp)
    return reduce(weighted_nll(log_p, index, share, xp), reduction, xp, count=xp.sum(share))


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
    has_classes(log_p, target, weight, "log-probabilities", probabilities=False)
    index, _, share = target_shares(log_p, target, weight, ignore_index, xp)
    slopes = -share * one_hot(log_p, index, xp)
    return spread(slopes, dy, reduction, xp, shape=tuple(target.shape), count=xp.sum(share))


class NLL(ClassLoss):
    """Negative log-likelihood of classes given log-probabilities; see `ClassLoss` and `nll`."""

    function = staticmethod(nll)
    gradient = staticmethod(nll_backward)
