"""Losses of classes: how unlikely a prediction makes the target."""

from math import prod

from array_api_compat import device

from ...backends import backend_of
from ...backends.types import Array, Namespace, dtype_name
from ..activations import log_softmax
from ..arrays import namespace, require_float, require_same_dtype, require_shape, scalar, zero
from .base import Loss, Reduction, reduce


def cross_entropy(logits: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None) -> Array:
    """Negative log-likelihood of the target under the softmax of the logits over axis 1.

    Parameters
    ----------
    logits : array
        ``(N, C, ...)``, float32 or float64.
    target : array
        Classes ``0 .. C-1``, integer, ``(N, ...)``; or probabilities, of the logits' shape and dtype.
    reduction : {"mean", "sum", "none"}
        The mean is over the targets ``(N, ...)``.

    Returns
    -------
    array
        0-d, or ``(N, ...)`` without reduction. A class out of range gives NaN.
    """
    xp = namespace(xp, logits, target)
    log_p = log_softmax(logits, axis=1, xp=xp)
    if _is_classes(logits, target):
        valid, index = _picked(logits, target, xp)
        picked = xp.take_along_axis(log_p, index, axis=1)
        losses = xp.where(valid, -picked, scalar(float("nan"), logits, xp))[:, 0, ...]
    else:
        # A class of probability 0 counts nothing, were its logarithm minus infinity.
        losses = -xp.sum(target * xp.where(target == 0.0, zero(logits, xp), log_p), axis=1)
    return reduce(losses, reduction, xp)


def cross_entropy_backward(
    dy: Array | float, logits: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``(softmax(logits) * sum_c target_c - target) dy``, divided by the number of targets for the mean.

    Source: C. Bishop, "Pattern recognition and machine learning", 2006, eq. 4.109.
    """
    xp = namespace(xp, logits, target)
    p = xp.exp(log_softmax(logits, axis=1, xp=xp))
    if _is_classes(logits, target):
        valid, index = _picked(logits, target, xp)
        classes = xp.arange(logits.shape[1], dtype=index.dtype, device=device(logits))
        classes = xp.reshape(classes, (1, logits.shape[1], *(1,) * (logits.ndim - 2)))
        one = xp.astype(classes == index, logits.dtype)
        gradient = xp.where(valid, p - one, scalar(float("nan"), logits, xp))
    else:
        gradient = p * xp.sum(target, axis=1, keepdims=True) - target
    if hasattr(dy, "ndim") and dy.ndim:
        dy = xp.expand_dims(dy, axis=1)
    gradient = gradient * dy
    count = prod(logits.shape) // logits.shape[1]
    return gradient / scalar(count, logits, xp) if reduction == "mean" else gradient


def _is_classes(logits: Array, target: Array) -> bool:
    """Whether the target is classes (or probabilities), after checking that it fits the logits."""
    require_float(logits, "logits")
    if logits.ndim < 2:
        raise ValueError(f"logits need shape (N, C, ...), got {tuple(logits.shape)}")
    if dtype_name(target.dtype).startswith(("int", "uint")):
        require_shape(target, (logits.shape[0], *logits.shape[2:]), "target of classes")
        return True
    require_same_dtype(logits=logits, target=target)
    require_shape(target, tuple(logits.shape), "target of probabilities")
    return False


def _picked(logits: Array, target: Array, xp: Namespace) -> tuple[Array, Array]:
    """``(N, 1, ...)``: which targets are in range, and the targets as an index."""
    index = xp.expand_dims(xp.astype(target, xp.int64), axis=1)
    valid = xp.logical_and(index >= 0, index < logits.shape[1])
    return valid, xp.where(valid, index, xp.zeros_like(index))


class CrossEntropy(Loss):
    """Cross-entropy of logits with classes or probabilities; see `cross_entropy`.

    A class out of range is an error where the device is the CPU. On a GPU looking would mean waiting for it; there
    the loss is NaN.
    """

    def _forward(self, prediction: Array, target: Array, xp: Namespace) -> Array:
        if _is_classes(prediction, target) and prod(target.shape) and backend_of(target).is_host:
            low, high = int(xp.min(target)), int(xp.max(target))
            if low < 0 or high >= prediction.shape[1]:
                raise ValueError(f"targets run from {low} to {high}, classes from 0 to {prediction.shape[1] - 1}")
        return cross_entropy(prediction, target, reduction=self.reduction, xp=xp)

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace) -> Array:
        return cross_entropy_backward(dy, prediction, target, reduction=self.reduction, xp=xp)
