"""Cross-entropy of classes: the negative log-likelihood of the target under the softmax of the logits.

A target is a class for each of ``(N, ...)``, an integer, or probabilities of all classes, ``(N, C, ...)``. The weight
``q_c`` of class c in the loss is, for the class y with label smoothing s and weights w of classes,

    q_c = (1 - s) w_y [c = y] + s w_c / C        q_c = w_c ((1 - s) target_c + s / C)  for probabilities

and the loss is ``-sum_c q_c log p_c``. A target equal to ``ignore_index`` has q = 0. The mean is over the targets that
are not ignored, each with weight ``w_y``; with probabilities it is over all ``(N, ...)``, as in PyTorch.
"""

from typing import Any, Unpack

from array_api_compat import device

from ...backends import operations_of
from ...backends.execution.team import current_team
from ...backends.kept_calls import kept_calls
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..activations import log_softmax
from ..activations.softmax import below_largest
from ..core.array_checks import namespace
from ..core.axis_order import channels_first, channels_last
from ..core.batch_blocks import by_samples, over_blocks
from ..core.elementwise import times, zero
from ..core.placement import Placement
from .base import REDUCTIONS, Reduction, reduce, spread, upstream
from .class_loss import ClassLoss
from .class_targets import along_classes, count_equally, has_classes, one_hot, target_shares, weighted_nll


@without_graph
def cross_entropy(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """Negative log-likelihood of the target under the softmax of the logits over axis 1, ``-sum_c q_c log p_c``.

    Parameters
    ----------
    logits : array
        ``(N, C, ...)``, float32 or float64.
    target : array
        Classes ``0 .. C-1``, integer, ``(N, ...)``; or probabilities, of the logits' shape and dtype.
    weight : array, optional
        w, ``(C,)``, of the dtype of ``logits``; ones unless given.
    ignore_index : int
        Targets of this class are ignored: their loss and gradient are 0. It has no effect on probabilities.
    label_smoothing : float
        The part, from 0 to 1, of the target that is spread evenly over all classes.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of ``w_y`` over the targets that are not ignored (NaN if that is 0); for
        probabilities by the number of targets ``(N, ...)``.

    Returns
    -------
    array
        0-d, or ``(N, ...)`` without reduction. The loss of a target that is no class and is not ignored is NaN.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit, or a label_smoothing out of range.

    Notes
    -----
    A class with q = 0 adds 0, even if ``log p`` is minus infinity. Source of the smoothing: C. Szegedy et al.,
    "Rethinking the Inception architecture for computer vision", 2016, section 7.
    """
    xp = namespace(xp, ("weight",), logits=logits, target=target, weight=weight)
    label_smoothing, ignore_index = _smoothing(label_smoothing), checks.integer("ignore_index", ignore_index)
    if not has_classes(logits, target, weight, "logits"):
        q = _smoothed(logits, target, weight, label_smoothing, xp)
        log_p = log_softmax(logits, axis=1, xp=xp)
        return reduce(-xp.sum(q * xp.where(q == 0.0, zero(q, xp), log_p), axis=1), reduction, xp)
    found = None if label_smoothing else _by_engine(logits, target, weight, ignore_index, reduction, xp)
    if found is not None:
        return found
    if weight is None and not label_smoothing and count_equally(target, logits.shape[1], ignore_index, xp):
        return reduce(_losses(logits, xp.expand_dims(target, axis=1), xp)[:, 0, ...], reduction, xp)
    index, kept, share = target_shares(logits, target, weight, ignore_index, xp)
    if not label_smoothing:
        return reduce(_weighted_losses(logits, index, share, xp), reduction, xp, count=xp.sum(share))
    log_p = log_softmax(logits, axis=1, xp=xp)
    losses = weighted_nll(log_p, index, share, xp)
    weighted = log_p if weight is None else times(log_p, along_classes(weight, log_p, xp), xp)
    even = xp.where(kept[:, 0, ...], -xp.sum(weighted, axis=1), zero(losses, xp))
    losses = (1.0 - label_smoothing) * losses + (label_smoothing / logits.shape[1]) * even
    return reduce(losses, reduction, xp, count=xp.sum(share))


@without_graph
def cross_entropy_backward(
    dy: Array | float,
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``(softmax(logits) sum_c q_c - q) dy``, divided for the mean as the loss is.

    Source: C. Bishop, "Pattern recognition and machine learning", 2006, eq. 4.109.
    """
    xp = namespace(xp, ("weight",), logits=logits, target=target, weight=weight)
    label_smoothing, ignore_index = _smoothing(label_smoothing), checks.integer("ignore_index", ignore_index)
    if not has_classes(logits, target, weight, "logits"):
        q = _smoothed(logits, target, weight, label_smoothing, xp)
        p = xp.exp(log_softmax(logits, axis=1, xp=xp))
        shape = (logits.shape[0], *logits.shape[2:])
        return spread(p * xp.sum(q, axis=1, keepdims=True) - q, dy, reduction, xp, shape=shape)
    if not label_smoothing:
        checks.choice("reduction", reduction, REDUCTIONS)
        given = upstream(dy, logits, tuple(target.shape) if reduction == "none" else ())
        each, number = (None, given) if isinstance(given, float) else (given, 1.0)
        found = _gradient_by_engine(logits, target, weight, each, number, ignore_index, reduction, xp)
        if found is not None:
            return found
    if weight is None and not label_smoothing and count_equally(target, logits.shape[1], ignore_index, xp):
        return _slopes(dy, logits, target, reduction, xp)
    index, kept, share = target_shares(logits, target, weight, ignore_index, xp)

    def slopes_of(logits: Array, index: Array, kept: Array, share: Array) -> Array:
        p = xp.exp(log_softmax(logits, axis=1, xp=xp))
        slopes = (p - one_hot(logits, index, xp)) * share
        if label_smoothing:
            w = xp.ones_like(p) if weight is None else along_classes(weight, p, xp)
            even = p * xp.sum(w, axis=1, keepdims=True) - w
            slopes = (1.0 - label_smoothing) * slopes + (label_smoothing / logits.shape[1]) * even
        return operations_of(xp).select(kept, slopes)

    slopes = by_samples(slopes_of, logits, index, kept, share, xp=xp)
    return spread(slopes, dy, reduction, xp, shape=tuple(target.shape), count=xp.sum(share))


@kept_calls(3)
def _by_engine(
    logits: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, xp: Namespace
) -> Array | None:
    """`cross_entropy` of classes by the backend's own kernels; None if there are none."""
    kernels = _kernels(logits, target, ignore_index, reduction, xp)
    if kernels is None:
        return None
    return kernels.forward(logits if logits.ndim == 2 else channels_last(logits, xp), target, weight)


@kept_calls(4)
def _gradient_by_engine(
    logits: Array,
    target: Array,
    weight: Array | None,
    dy: Array | None,
    number: float,
    ignore_index: int,
    reduction: str,
    xp: Namespace,
) -> Array | None:
    """`cross_entropy_backward` likewise, for an upstream gradient that is an array or else a number."""
    kernels, upstream = _kernels(logits, target, ignore_index, reduction, xp), number if dy is None else dy
    if kernels is None:
        return None
    if logits.ndim == 2:
        return kernels.backward(upstream, logits, target, weight)
    return channels_first(kernels.backward(upstream, channels_last(logits, xp), target, weight), xp)


def _kernels(logits: Array, target: Array, ignore_index: int, reduction: str, xp: Namespace) -> Any:
    """The backend's own kernels for classes, or None; None in a team, whose mean is over the targets of all workers."""
    checks.choice("reduction", reduction, REDUCTIONS)
    if current_team() is not None:
        return None
    shape = (logits.shape[0], *logits.shape[2:], logits.shape[1])
    problem = (shape, dtype_name(target.dtype), ignore_index, reduction)
    return operations_of(xp).prepare("cross entropy", problem, dtype_name(logits.dtype))


def _losses(logits: Array, index: Array, xp: Namespace) -> Array:
    """``-log p_y``, ``(N, 1, ...)``, if all targets have weight 1."""
    losses = xp.empty(index.shape, dtype=logits.dtype, device=device(logits))

    def work(part: slice) -> None:
        some, ops = logits[part, ...], operations_of(xp)
        largest = xp.max(some, axis=1, keepdims=True)
        shifted = below_largest(some, largest, xp)
        at_target = ops.pick(shifted, index[part, ...])
        losses[part, ...] = xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True)) - at_target

    over_blocks(work, logits, xp)
    return losses


def _slopes(dy: Array | float, logits: Array, target: Array, reduction: Reduction, xp: Namespace) -> Array:
    """``(softmax(logits) - [c = y]) dy`` in few passes over memory, if all targets have weight 1."""
    index = xp.expand_dims(target, axis=1)
    ones = xp.ones(index.shape, dtype=logits.dtype, device=device(logits))
    share = spread(ones, dy, reduction, xp, shape=tuple(target.shape))

    def slopes_of(logits: Array, index: Array, share: Array) -> Array:
        slopes = xp.exp(below_largest(logits, xp.max(logits, axis=1, keepdims=True), xp))
        slopes *= share / xp.sum(slopes, axis=1, keepdims=True)
        return operations_of(xp).add_at(slopes, index, -share)

    return by_samples(slopes_of, logits, index, share, xp=xp)


def _weighted_losses(logits: Array, index: Array, share: Array, xp: Namespace) -> Array:
    """``-w_y log p_y``, with the bits of `log_softmax` at y."""
    largest = xp.max(logits, axis=1, keepdims=True)
    shifted = below_largest(logits, largest, xp)
    losses = xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True)) - xp.take_along_axis(shifted, index, axis=1)
    return (xp.where(share == 0.0, share, losses) * share)[:, 0, ...]


def _smoothing(label_smoothing: float) -> float:
    return float(checks.number("label_smoothing", label_smoothing, least=0.0, most=1.0))


def _smoothed(logits: Array, target: Array, weight: Array | None, label_smoothing: float, xp: Namespace) -> Array:
    """q of a target of probabilities."""
    if label_smoothing:
        target = (1.0 - label_smoothing) * target + label_smoothing / logits.shape[1]
    return target if weight is None else target * along_classes(weight, logits, xp)


class CrossEntropy(ClassLoss):
    """Cross-entropy of logits with classes or probabilities; see `cross_entropy`.

    Parameters
    ----------
    reduction, weight, ignore_index, **placement
        As for `ClassLoss`.
    label_smoothing : float
        The part of the target that is spread evenly over all classes.
    """

    function = staticmethod(cross_entropy)
    gradient = staticmethod(cross_entropy_backward)
    signature = (*ClassLoss.signature, ("label_smoothing", 0.0))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        weight: Any = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, weight=weight, ignore_index=ignore_index, **placement)
        self.label_smoothing = _smoothing(label_smoothing)
