"""Binary cross-entropy, of probabilities and of logits: each entry of the target is a probability, most often 0 or 1.

With the predicted probability p, or ``p = sigmoid(x)`` of logits x, and the target t, the loss is
``-w (v t log p + (1 - t) log(1 - p))``, where w are weights of entries and v, ``pos_weight``, weights of their positive
part. Both have any shape that broadcasts to that of the prediction; nothing else is broadcast.

Source: C. Bishop, "Pattern recognition and machine learning", 2006, eq. 4.90 and 4.91.
"""

from math import nan
from typing import Any, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace
from ..activations import relu, sigmoid
from ..core.array_checks import namespace, require_same_dtype
from ..core.elementwise import scalar, times
from ..core.placement import Placement
from .base import Loss, Reduction, paired, reduce, spread
from .loss_weights import LossWeights

LOWEST_LOG = -100.0
SMALLEST_VARIANCE = 9.999999960041972e-13  # 1e-12 as float32, which it is in PyTorch for float64 too


@without_graph
def binary_cross_entropy(
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``-w (t log p + (1 - t) log(1 - p))``, with logarithms of at least -100 as in PyTorch.

    Parameters
    ----------
    prediction, target : array
        p and t, of one shape and dtype; the loss of a p outside of [0, 1] is NaN.
    weight : array, optional
        w, of a shape that broadcasts to theirs.
    reduction : {"mean", "sum", "none"}
        The mean is over all entries, whatever their weights.

    Returns
    -------
    array
        0-d, or of the prediction's shape without reduction.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.
    """
    xp = _checked(xp, prediction, target, weight=weight)
    yes = _log(xp.log, prediction, prediction == 0.0, xp)
    no = _log(xp.log1p, -prediction, prediction == 1.0, xp)
    return reduce(_weighted(-(target * yes + (1.0 - target) * no), weight, xp), reduction, xp)


@without_graph
def binary_cross_entropy_backward(
    dy: Array | float,
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``w (p - t) / max(p (1 - p), 1e-12) dy``; the bound is PyTorch's."""
    xp = _checked(xp, prediction, target, weight=weight)
    variance = prediction * (1.0 - prediction)
    smallest = scalar(SMALLEST_VARIANCE, prediction, xp)
    slopes = (prediction - target) / xp.where(variance < smallest, smallest, variance)
    # Outside of [0, 1] there is no loss to differentiate.
    slopes = xp.where(variance < 0.0, scalar(nan, prediction, xp), slopes)
    return spread(_weighted(slopes, weight, xp), dy, reduction, xp)


@without_graph
def binary_cross_entropy_with_logits(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``w (v t softplus(-x) + (1 - t) softplus(x))``, where ``softplus(x) = max(x, 0) + log(1 + exp(-|x|))``.

    This is the binary cross-entropy of ``sigmoid(x)``, without overflow. The loss of an infinite logit is 0 if its sign
    agrees with the target, else infinite.

    Parameters
    ----------
    logits, target : array
        x and t, of one shape and dtype.
    weight, pos_weight : array, optional
        w and v, of shapes that broadcast to theirs.
    reduction : {"mean", "sum", "none"}
        The mean is over all entries, whatever their weights.

    Returns
    -------
    array
        0-d, or of the logits' shape without reduction.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.
    """
    xp = _checked(xp, logits, target, weight=weight, pos_weight=pos_weight)
    bend = xp.log1p(xp.exp(-xp.abs(logits)))
    yes, no = relu(-logits, xp=xp) + bend, relu(logits, xp=xp) + bend
    # A share of 0 adds 0, even if the loss is infinite; if the logit is NaN, the other part is NaN too.
    multiply = operations_of(xp).multiply_unless_zero
    losses = _weighted(multiply(target, yes), pos_weight, xp) + multiply(1.0 - target, no)
    return reduce(_weighted(losses, weight, xp), reduction, xp)


@without_graph
def binary_cross_entropy_with_logits_backward(
    dy: Array | float,
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``w ((1 - t) sigmoid(x) - v t sigmoid(-x)) dy``, which is ``(sigmoid(x) - t) dy`` without weights."""
    xp = _checked(xp, logits, target, weight=weight, pos_weight=pos_weight)
    yes = _weighted(target * sigmoid(-logits, xp=xp), pos_weight, xp)
    slopes = (1.0 - target) * sigmoid(logits, xp=xp) - yes
    return spread(_weighted(slopes, weight, xp), dy, reduction, xp)


def _log(log: Any, x: Array, at_zero: Array, xp: Namespace) -> Array:
    """``log(x)``, at least -100; where the probability is 0, the logarithm, of which NumPy warns, is not computed."""
    lowest = scalar(LOWEST_LOG, x, xp)
    value = log(xp.where(at_zero, scalar(0.5, x, xp), x))
    return xp.where(xp.logical_or(at_zero, value < lowest), lowest, value)


def _weighted(losses: Array, weight: Array | None, xp: Namespace) -> Array:
    return losses if weight is None else times(losses, weight, xp)


def _checked(xp: Namespace | None, prediction: Array, target: Array, **weights: Array | None) -> Namespace:
    """The namespace of all arrays, after checks of dtypes and shapes."""
    xp = namespace(xp, weights, prediction=prediction, target=target, **weights)
    paired(xp, prediction, target)
    require_same_dtype(prediction=prediction, **weights)
    shape = tuple(prediction.shape)
    for name, weight in weights.items():
        own = () if weight is None else tuple(weight.shape)
        pairs = zip(reversed(own), reversed(shape), strict=False)
        if len(own) > len(shape) or any(n not in (1, size) for n, size in pairs):
            raise ValueError(f"{name} has shape {own}, which does not broadcast to the prediction's, {shape}")
    return xp


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of probabilities; see `binary_cross_entropy`.

    For training use `BinaryCrossEntropyWithLogits`: near 0 and 1 a probability is rounded, where its logit is not.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like, optional
        Weights of entries: on the host or an array of any backend, copied to the prediction's once.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(binary_cross_entropy)
    gradient = staticmethod(binary_cross_entropy_backward)
    signature = (("reduction", "mean"), ("weight", None))

    def __init__(self, reduction: Reduction = "mean", *, weight: Any = None, **placement: Unpack[Placement]) -> None:
        super().__init__(reduction, **placement)
        self.weight = LossWeights.given(weight, "weight")


class BinaryCrossEntropyWithLogits(Loss):
    """Binary cross-entropy of logits; see `binary_cross_entropy_with_logits`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight, pos_weight : array_like, optional
        Weights of entries, and of their positive part: on the host or arrays of any backend, copied to the
        prediction's once.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(binary_cross_entropy_with_logits)
    gradient = staticmethod(binary_cross_entropy_with_logits_backward)
    signature = (("reduction", "mean"), ("weight", None), ("pos_weight", None))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        weight: Any = None,
        pos_weight: Any = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, **placement)
        self.weight = LossWeights.given(weight, "weight")
        self.pos_weight = LossWeights.given(pos_weight, "pos_weight")
