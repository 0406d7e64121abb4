"""The focal loss: cross-entropy in which well-predicted targets count less, for rare classes.

For the class y with the predicted probability p_y, or for a target t in each entry with ``p = sigmoid(x)``::

    classes   -alpha_y (1 - p_y)^gamma log p_y
    entries   alpha_t (1 - p_t)^gamma ce(x, t)     p_t = t p + (1 - t) (1 - p), alpha_t likewise of alpha

where ce is the binary cross-entropy of the logit. With ``gamma=0`` these are the cross-entropies. All is computed from
logits: ``1 - p`` as ``-expm1(log p)``, without cancellation.

Source: T.-Y. Lin et al., "Focal loss for dense object detection", 2017; for a t between 0 and 1 as in torchvision and
Keras.
"""

from math import prod
from typing import Any, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, is_integer_dtype
from ..activations import log_softmax, relu, sigmoid
from ..core.array_checks import namespace
from ..core.elementwise import scalar, zero
from ..core.placement import Placement
from .base import Reduction, paired, reduce, spread
from .class_loss import ClassLoss
from .class_targets import has_classes, one_hot, target_shares
from .loss_weights import LossWeights


@without_graph
def focal(
    logits: Array,
    target: Array,
    *,
    alpha: Array | float | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """The focal loss of logits: of classes for integer targets, of each entry for targets in floats.

    Parameters
    ----------
    logits : array
        ``(N, C, ...)`` for classes, any shape for entries; float32 or float64.
    target : array
        Classes ``0 .. C-1``, integer, ``(N, ...)``; or for each entry a number from 0 (no) to 1 (yes), of the logits'
        shape and dtype.
    alpha : float or array, optional
        For classes their weights, ``(C,)``, or one factor for all; for entries a number from 0 to 1, the weight of yes,
        and ``1 - alpha`` is that of no. 1 unless given.
    gamma : float
        At least 0; the larger it is, the less well-predicted targets count.
    ignore_index : int
        Classes of this number are ignored: their loss and gradient are 0. It has no effect on entries.
    reduction : {"mean", "sum", "none"}
        The mean is over all targets that are not ignored, whatever alpha is (NaN if there are none).

    Returns
    -------
    array
        0-d, or of the target's shape without reduction. The loss of a target that is no class and is not ignored is
        NaN.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit, or an alpha or gamma out of range.
    """
    xp = namespace(xp, logits=logits, target=target)
    gamma, ignore_index = _gamma(gamma), checks.integer("ignore_index", ignore_index)
    if not is_integer_dtype(target.dtype):
        xp = paired(xp, logits, target)
        entropy, distance = _entries(logits, target, xp)
        losses = _power(distance, gamma, xp) * entropy
        share = _yes_and_no(alpha, target)
        return reduce(losses if share is None else share * losses, reduction, xp)
    xp, weight, factor = _of_classes(xp, logits, target, alpha)
    index, kept, share = target_shares(logits, target, weight, ignore_index, xp)
    log_p = xp.take_along_axis(log_softmax(logits, axis=1, xp=xp), index, axis=1)
    losses = -_power(-xp.expm1(log_p), gamma, xp) * log_p
    losses = (xp.where(share == 0.0, share, losses) * share)[:, 0, ...] * factor
    return reduce(losses, reduction, xp, count=xp.sum(xp.astype(kept, logits.dtype)))


@without_graph
def focal_backward(
    dy: Array | float,
    logits: Array,
    target: Array,
    *,
    alpha: Array | float | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """The gradient with respect to the logits, ``g (softmax(x)_c - [c = y]) dy`` for classes with
    ``g = alpha_y (1 - p)^gamma (1 - gamma p log p / (1 - p))``, and for entries
    ``alpha_t q^gamma (p - t + gamma (1 - 2 t) p (1 - p) ce / q) dy`` with ``q = 1 - p_t``."""
    xp = namespace(xp, logits=logits, target=target)
    gamma, ignore_index = _gamma(gamma), checks.integer("ignore_index", ignore_index)
    if not is_integer_dtype(target.dtype):
        xp = paired(xp, logits, target)
        entropy, distance = _entries(logits, target, xp)
        yes, no = sigmoid(logits, xp=xp), sigmoid(-logits, xp=xp)
        # Where q is 0, so is the loss, and it has no slope.
        part = yes * no / xp.where(distance == 0.0, scalar(1.0, logits, xp), distance)
        of_power = (gamma - (2.0 * gamma) * target) * operations_of(xp).multiply_unless_zero(part, entropy)
        slopes = _power(distance, gamma, xp) * ((1.0 - target) * yes - target * no + of_power)
        share = _yes_and_no(alpha, target)
        return spread(slopes if share is None else share * slopes, dy, reduction, xp)
    xp, weight, factor = _of_classes(xp, logits, target, alpha)
    index, kept, share = target_shares(logits, target, weight, ignore_index, xp)
    log_all = log_softmax(logits, axis=1, xp=xp)
    log_p = xp.take_along_axis(log_all, index, axis=1)
    p, rest, one = xp.exp(log_p), -xp.expm1(log_p), scalar(1.0, logits, xp)
    # log p / (1 - p) is -1 for p = 1; p log p is 0 for p = 0.
    ratio = xp.where(rest == 0.0, -one, log_p / xp.where(rest == 0.0, one, rest))
    slope = _power(rest, gamma, xp) * (1.0 - gamma * xp.where(p == 0.0, zero(logits, xp), p * ratio))
    slope = xp.where(share == 0.0, share, slope) * share * factor
    slopes = slope * (xp.exp(log_all) - one_hot(logits, index, xp))
    count = xp.sum(xp.astype(kept, logits.dtype))
    return spread(slopes, dy, reduction, xp, shape=tuple(target.shape), count=count)


def _gamma(gamma: float) -> float:
    return float(checks.number("gamma", gamma, least=0))


def _of_classes(
    xp: Namespace | None, logits: Array, target: Array, alpha: Array | float | None
) -> tuple[Namespace, Array | None, float]:
    """The namespace, weights of classes, and a factor of all, after checks."""
    factor = float(checks.number("alpha", alpha, least=0)) if checks.is_number(alpha) else 1.0
    weight: Array | None = None if alpha is None or checks.is_number(alpha) else alpha
    xp = namespace(xp, ("alpha",), logits=logits, target=target, alpha=weight)
    has_classes(logits, target, weight, "logits")
    return xp, weight, factor


def _yes_and_no(alpha: Array | float | None, target: Array) -> Array | None:
    """The weight of each entry, ``alpha t + (1 - alpha) (1 - t)``; None if it is 1."""
    if alpha is None:
        return None
    if not checks.is_number(alpha):
        raise ValueError("alpha must be a number from 0 to 1, the weight of yes, for a target of floats")
    alpha = float(checks.number("alpha", alpha, least=0, most=1))
    return target * (2.0 * alpha - 1.0) + (1.0 - alpha)


def _entries(logits: Array, target: Array, xp: Namespace) -> tuple[Array, Array]:
    """The binary cross-entropy of each entry, and its distance from the target, ``1 - p_t``."""
    common = xp.log1p(xp.exp(-xp.abs(logits)))
    yes, no = relu(-logits, xp=xp) + common, relu(logits, xp=xp) + common
    # A share of 0 adds 0, even if the loss is infinite.
    multiply = operations_of(xp).multiply_unless_zero
    distance = target * sigmoid(-logits, xp=xp) + (1.0 - target) * sigmoid(logits, xp=xp)
    return multiply(target, yes) + multiply(1.0 - target, no), distance


def _power(x: Array, p: float, xp: Namespace) -> Array:
    """``x^p`` for x >= 0."""
    if p == 2.0:
        return x * x
    return x if p == 1.0 else xp.pow(x, p)


class Focal(ClassLoss):
    """Focal loss of logits, for classes that are rare or easily told apart; see `focal`.

    Integer targets are classes (softmax over axis 1), targets in floats are a yes or no for each entry (sigmoid).

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    alpha : float or array_like, optional
        Weights of classes, ``(C,)``, or one factor of all; for entries the weight of yes, from 0 to 1. 0.25 in the
        paper.
    gamma : float
        At least 0, 2 in the paper.
    ignore_index : int
        Targets of this class are ignored.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(focal)
    gradient = staticmethod(focal_backward)
    signature = (("reduction", "mean"), ("alpha", None), ("gamma", 2.0), ("ignore_index", -100))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        alpha: Any = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index, **placement)
        is_number = checks.is_number(alpha)
        self.alpha = checks.number("alpha", alpha, least=0) if is_number else LossWeights.given(alpha, "alpha")
        self.gamma = _gamma(gamma)

    def terms(self, prediction: Array, target: Array) -> Array:
        """The number of targets that are not ignored."""
        if not is_integer_dtype(target.dtype):
            return self._number(float(prod(target.shape)), prediction, target)
        b = self._place(prediction, target)
        with b.context():
            return b.down(b.xp.sum(target_shares(b.up(prediction), target, None, self.ignore_index, b.xp)[2]))

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """As `terms`."""
        if not is_integer_dtype(target.dtype):
            return float(prod(target.shape))
        return super().counted(prediction, target, none_ignored=none_ignored)
