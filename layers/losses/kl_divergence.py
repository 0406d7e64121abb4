"""The Kullback-Leibler divergence of a prediction from a target."""

from math import nan, prod
from typing import Literal, TypeAlias, Unpack

from ...backends.execution.team import rows_of_all
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import scalar, zero
from ..core.placement import Placement
from .base import REDUCTIONS, Loss, Reduction, paired, reduce, spread

KLReduction: TypeAlias = Reduction | Literal["batchmean"]
KL_REDUCTIONS = (*REDUCTIONS, "batchmean")


@without_graph
def kl_divergence(
    log_p: Array,
    target: Array,
    *,
    log_target: bool = False,
    reduction: KLReduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``t (log t - log p)``: the information lost by using p for t.

    Parameters
    ----------
    log_p : array
        Logarithms of the predicted probabilities, float32 or float64, of any shape.
    target : array
        t, or ``log t`` with ``log_target``, of the same shape and dtype. If t is 0, the loss is 0.
    log_target : bool
    reduction : {"mean", "batchmean", "sum", "none"}
        ``"batchmean"``, the sum divided by the length N of the first axis, is the mathematical definition;
        ``"mean"`` divides by the number of entries, as PyTorch does.

    Returns
    -------
    array
        0-d, or of the shape of ``log_p`` without reduction.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.

    Notes
    -----
    Source: S. Kullback and R. Leibler, "On information and sufficiency", 1951.
    """
    xp = paired(xp, log_p, target)
    log_target = checks.flag("log_target", log_target)
    checks.choice("reduction", reduction, KL_REDUCTIONS)
    t = xp.exp(target) if log_target else target
    absent, nothing = t == 0.0, zero(target, xp)
    log_t = target if log_target else xp.log(xp.where(absent, scalar(1.0, target, xp), target))
    # Where t is 0, both logarithms may be minus infinity; 0 times their difference would be NaN.
    unseen = xp.logical_and(absent, log_p == log_p)
    losses = t * xp.where(unseen, nothing, xp.where(absent, nothing, log_t) - log_p)
    if reduction == "batchmean":
        return reduce(losses, "sum", xp) / scalar(_samples(log_p) or nan, losses, xp)
    return reduce(losses, reduction, xp)


@without_graph
def kl_divergence_backward(
    dy: Array | float,
    log_p: Array,
    target: Array,
    *,
    log_target: bool = False,
    reduction: KLReduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``-t dy``, divided for the means as the loss is."""
    xp = paired(xp, log_p, target)
    log_target = checks.flag("log_target", log_target)
    checks.choice("reduction", reduction, KL_REDUCTIONS)
    slopes = -xp.exp(target) if log_target else -target
    if reduction == "batchmean":
        return spread(slopes, dy, "sum", xp) / scalar(_samples(log_p) or nan, slopes, xp)
    return spread(slopes, dy, reduction, xp)


def _samples(log_p: Array) -> int:
    return rows_of_all(int(log_p.shape[0])) if log_p.ndim else 1


class KLDivergence(Loss):
    """Kullback-Leibler divergence of log-probabilities from a target; see `kl_divergence`.

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}
    log_target : bool
        Whether the target also has logarithms.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(kl_divergence)
    gradient = staticmethod(kl_divergence_backward)
    signature = (("reduction", "mean"), ("log_target", False))
    reductions = KL_REDUCTIONS

    def __init__(
        self, reduction: KLReduction = "mean", *, log_target: bool = False, **placement: Unpack[Placement]
    ) -> None:
        reduction = checks.choice("reduction", reduction, self.reductions)
        super().__init__("sum" if reduction == "batchmean" else reduction, **placement)
        self.reduction = reduction
        self.log_target = checks.flag("log_target", log_target)

    def terms(self, prediction: Array, target: Array) -> Array:
        """As for `Loss`; for ``"batchmean"`` the number of samples."""
        if self.reduction != "batchmean":
            return super().terms(prediction, target)
        return self._number(float(target.shape[0]), prediction, target)

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """As for `Loss`; for ``"batchmean"`` the number of samples."""
        return float(target.shape[0] if self.reduction == "batchmean" else prod(target.shape))
