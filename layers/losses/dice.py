"""The Dice loss: one minus the overlap of predicted and true regions, for masks.

For each sample and class, with predicted probabilities p and targets t (1 within the region, 0 outside) over all pixels
that are not ignored::

    1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)  =  (sum(p) + sum(t) - 2 sum(p t)) / (... + smooth)

It is 0 where both are empty. The mean is over samples and classes; a sample whose pixels are all ignored does not
count.

Source: F. Milletari, N. Navab and S.-A. Ahmadi, "V-Net: fully convolutional neural networks for volumetric medical
image segmentation", 2016; with sums instead of sums of squares in the denominator, as in C. Sudre et al., "Generalised
Dice overlap as a deep learning loss function", 2017.
"""

from math import prod
from typing import Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, is_integer_dtype
from ..activations import sigmoid, softmax
from ..core.array_checks import namespace
from ..core.elementwise import scalar, zero
from ..core.placement import Placement
from .base import Reduction, paired, reduce, spread
from .class_loss import ClassLoss
from .class_targets import has_classes, one_hot, target_shares


@without_graph
def dice(
    prediction: Array,
    target: Array,
    *,
    from_logits: bool = True,
    smooth: float = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """One minus the Dice coefficient of each sample and class.

    Parameters
    ----------
    prediction : array
        ``(N, C, ...)``, float32 or float64: logits or probabilities.
    target : array
        Classes ``0 .. C-1``, integer, ``(N, ...)``, of which each pixel has one: probabilities are the softmax over
        axis 1. Or a mask for each channel, of the prediction's shape and dtype: probabilities are sigmoids. One
        foreground class is a mask, ``(N, 1, ...)``.
    from_logits : bool
        Whether the prediction is logits.
    smooth : float
        Added to numerator and denominator, at least 0, in pixels. With a small one, a few pixels that are predicted for
        a class that does not occur cost nearly as much as many.
    ignore_index : int
        Pixels with this target are left out of all sums.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array
        0-d, or ``(N, C)`` without reduction. NaN for a target that is no class and is not ignored, and for the mean if
        all pixels are ignored.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit, integer targets of a single class, or a smooth below 0.
    """
    xp, p, t, share = _checked(xp, prediction, target, from_logits, ignore_index)
    losses, _ = _apart(p, t, share, _smooth(smooth), xp)
    return reduce(losses, reduction, xp, count=xp.sum(_counts(share, losses, xp)))


@without_graph
def dice_backward(
    dy: Array | float,
    prediction: Array,
    target: Array,
    *,
    from_logits: bool = True,
    smooth: float = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    xp: Namespace | None = None,
) -> Array:
    """``(1 - loss - 2 t) / (sum(p) + sum(t) + smooth) dy`` with respect to p, and through softmax or sigmoid."""
    xp, p, t, share = _checked(xp, prediction, target, from_logits, ignore_index)
    losses, divisor = _apart(p, t, share, _smooth(smooth), xp)
    count = xp.sum(_counts(share, losses, xp))
    scale = spread(xp.ones_like(losses), dy, reduction, xp, count=count) / divisor
    whole = (*losses.shape, *(1,) * (prediction.ndim - 2))
    slopes = (1.0 - xp.reshape(losses, whole) - 2.0 * t) * xp.reshape(scale, whole)
    slopes = _masked(slopes, share, xp)
    if not from_logits:
        return slopes
    if is_integer_dtype(target.dtype):
        return p * (slopes - xp.sum(slopes * p, axis=1, keepdims=True))
    return slopes * p * sigmoid(-prediction, xp=xp)


def _smooth(smooth: float) -> float:
    return float(checks.number("smooth", smooth, least=0))


def _checked(
    xp: Namespace | None, prediction: Array, target: Array, from_logits: bool, ignore_index: int
) -> tuple[Namespace, Array, Array, Array]:
    """The namespace, p, t, and the weight of each pixel: 1, 0 if it is ignored, NaN if its target is no class."""
    xp = namespace(xp, prediction=prediction, target=target)
    from_logits, ignore_index = checks.flag("from_logits", from_logits), checks.integer("ignore_index", ignore_index)
    if not is_integer_dtype(target.dtype):
        xp = paired(xp, prediction, target)
        if prediction.ndim < 2:
            raise ValueError(f"prediction must have shape (N, C, ...), got {tuple(prediction.shape)}")
        p = sigmoid(prediction, xp=xp) if from_logits else prediction
        return xp, p, target, _share(prediction, target, ignore_index, xp)
    has_classes(prediction, target, None, "prediction")
    if prediction.shape[1] == 1:
        raise ValueError(
            f"target has classes, but the prediction {tuple(prediction.shape)} has one channel: give a mask of its "
            "shape and dtype, 1 within the region and 0 outside"
        )
    index, _, share = target_shares(prediction, target, None, ignore_index, xp)
    p = softmax(prediction, axis=1, xp=xp) if from_logits else prediction
    return xp, p, one_hot(prediction, index, xp), share


def _share(prediction: Array, target: Array, ignore_index: int, xp: Namespace) -> Array:
    """The weight of each pixel; of the prediction only its dtype and number of classes are used."""
    if is_integer_dtype(target.dtype):
        return target_shares(prediction, target, None, ignore_index, xp)[2]
    return xp.astype(target != float(ignore_index), prediction.dtype)


def _masked(x: Array, share: Array, xp: Namespace) -> Array:
    """``x * share``, and 0 where the share is 0, also if x is NaN or infinite."""
    return xp.where(share == 0.0, zero(x, xp), x * share)


def _apart(p: Array, t: Array, share: Array, smooth: float, xp: Namespace) -> tuple[Array, Array]:
    """The loss of each sample and class, ``(N, C)``, and its divisor, 1 where nothing is predicted and nothing true."""
    axes = tuple(range(2, p.ndim))
    total = xp.sum(_masked(p + t, share, xp), axis=axes)
    apart = total - 2.0 * xp.sum(_masked(p * t, share, xp), axis=axes)
    divisor = total + smooth
    divisor = xp.where(divisor == 0.0, scalar(1.0, p, xp), divisor)
    return apart / divisor, divisor


def _counts(share: Array, losses: Array, xp: Namespace) -> Array:
    """1 for each sample and class with a pixel that is not ignored, else 0."""
    pixels = xp.sum(xp.astype(share != 0.0, share.dtype), axis=tuple(range(2, share.ndim)))
    return xp.astype(pixels > 0.0, losses.dtype) + xp.zeros_like(losses)


class Dice(ClassLoss):
    """Dice loss of masks, from logits or probabilities; see `dice`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over samples and classes; without reduction the loss is ``(N, C)``.
    from_logits : bool
        Whether the prediction is logits, of which the softmax (targets of classes) or sigmoid (masks) is taken.
    smooth : float
        Added to numerator and denominator, at least 0, in pixels.
    ignore_index : int
        Pixels with this target are left out.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(dice)
    gradient = staticmethod(dice_backward)
    signature = (("reduction", "mean"), ("from_logits", True), ("smooth", 1.0), ("ignore_index", -100))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        from_logits: bool = True,
        smooth: float = 1.0,
        ignore_index: int = -100,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index, **placement)
        self.from_logits, self.smooth = checks.flag("from_logits", from_logits), _smooth(smooth)

    def terms(self, prediction: Array, target: Array) -> Array:
        """The number of samples with a pixel that is not ignored, times that of classes."""
        b = self._place(prediction, target)
        with b.context():
            xp, up = b.xp, b.up(prediction)
            share = _share(up, b.up(target), self.ignore_index, xp)
            rows = xp.zeros((target.shape[0], up.shape[1]), dtype=up.dtype, device=b.device)
            return b.down(xp.sum(_counts(share, rows, xp)))

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """As `terms`."""
        if none_ignored and is_integer_dtype(target.dtype):
            return float(prod(prediction.shape[:2]))
        return self.terms(prediction, target)
