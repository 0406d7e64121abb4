"""Huber's loss and smooth L1: quadratic near the target and linear far from it, so that outliers have less influence.

With ``z = |p - t|`` and ``c = min(z, delta)``, Huber's loss is ``c (z - c / 2)``: ``z^2 / 2`` up to delta, and
``delta (z - delta / 2)`` beyond. Smooth L1 is Huber's loss divided by delta. In this form no large z is squared, so
nothing overflows.
"""

from math import inf
from typing import Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import scalar
from ..core.placement import Placement
from .base import Loss, Reduction, paired, reduce, spread
from .regression import clip, mae, mae_backward

# float32's smallest normal number. A smaller beta makes no difference, and may be flushed to 0.
SMALLEST_NORMAL = 2.0**-126


@without_graph
def huber(
    prediction: Array,
    target: Array,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``(p - t)^2 / 2`` up to ``|p - t| = delta``, and ``delta (|p - t| - delta / 2)`` from there.

    Parameters
    ----------
    prediction, target : array
        p and t, of one shape and dtype.
    delta : float
        Above 0.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    TypeError, ValueError
        For two dtypes, integers, two shapes, a delta that is not above 0.

    Notes
    -----
    Source: P. Huber, "Robust estimation of a location parameter", 1964.
    """
    xp = paired(xp, prediction, target)
    delta = _delta(delta)
    far = xp.abs(prediction - target)
    near = clip(far, delta, delta, xp)
    # With an infinite delta there is no linear part, and infinity minus its half would be NaN.
    losses = near * (0.5 * far) if delta == inf else near * (far - 0.5 * near)
    return reduce(losses, reduction, xp)


@without_graph
def huber_backward(
    dy: Array | float,
    prediction: Array,
    target: Array,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``min(max(p - t, -delta), delta) dy``."""
    xp = paired(xp, prediction, target)
    delta = _delta(delta)
    return spread(clip(prediction - target, delta, delta, xp), dy, reduction, xp)


@without_graph
def smooth_l1(
    prediction: Array,
    target: Array,
    *,
    beta: float = 1.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``(p - t)^2 / (2 beta)`` up to ``|p - t| = beta``, and ``|p - t| - beta / 2`` from there.

    Parameters
    ----------
    prediction, target : array
        p and t, of one shape and dtype.
    beta : float
        At least 0; with 0 this is `mae`.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    TypeError, ValueError
        For two dtypes, integers, two shapes, a beta below 0.

    Notes
    -----
    Source: R. Girshick, "Fast R-CNN", 2015, eq. 3.
    """
    beta = _beta(beta)
    if beta < SMALLEST_NORMAL:
        return mae(prediction, target, reduction=reduction, xp=xp)
    xp = paired(xp, prediction, target)
    far = xp.abs(prediction - target)
    near = clip(far, beta, beta, xp)
    return reduce(near / scalar(beta, far, xp) * (far - 0.5 * near), reduction, xp)


@without_graph
def smooth_l1_backward(
    dy: Array | float,
    prediction: Array,
    target: Array,
    *,
    beta: float = 1.0,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``min(max((p - t) / beta, -1), 1) dy``."""
    beta = _beta(beta)
    if beta < SMALLEST_NORMAL:
        return mae_backward(dy, prediction, target, reduction=reduction, xp=xp)
    xp = paired(xp, prediction, target)
    near = clip(prediction - target, beta, beta, xp)
    return spread(near / scalar(beta, near, xp), dy, reduction, xp)


def _delta(delta: float) -> float:
    return float(checks.number("delta", delta, above=0.0, infinite=True))


def _beta(beta: float) -> float:
    return float(checks.number("beta", beta, least=0.0, infinite=True))


class Huber(Loss):
    """Quadratic up to a distance of ``delta``, linear from there; see `huber`."""

    function = staticmethod(huber)
    gradient = staticmethod(huber_backward)
    signature = (("reduction", "mean"), ("delta", 1.0))

    def __init__(self, reduction: Reduction = "mean", *, delta: float = 1.0, **placement: Unpack[Placement]) -> None:
        super().__init__(reduction, **placement)
        self.delta = _delta(delta)


class SmoothL1(Loss):
    """Quadratic up to a distance of ``beta``, with slope 1 from there; see `smooth_l1`."""

    function = staticmethod(smooth_l1)
    gradient = staticmethod(smooth_l1_backward)
    signature = (("reduction", "mean"), ("beta", 1.0))

    def __init__(self, reduction: Reduction = "mean", *, beta: float = 1.0, **placement: Unpack[Placement]) -> None:
        super().__init__(reduction, **placement)
        self.beta = _beta(beta)
