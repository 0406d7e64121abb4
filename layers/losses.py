"""Losses: functions of a prediction and a target to a number, and the gradient with respect to the prediction.

A loss is called as ``loss(prediction, target)``; `backward` takes the gradient of what comes after it (1 unless
given). ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.
"""

from math import prod
from typing import Any, ClassVar, Literal, Self, TypeAlias, Unpack

from array_api_compat import device

from ..backends import Backend, BackendLike, backend_of, get_backend
from ..backends.types import Array, DType, Namespace, dtype_name
from .activations import log_softmax
from .arrays import namespace, require_float, require_same_dtype, require_shape, scalar, zero
from .base import named
from .placement import Placement, checked, foreign, place, says_where

Reduction: TypeAlias = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def mean_squared_error(
    prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``(prediction - target)^2``, its mean over all entries, its sum, or each.

    Shapes and dtypes of the two are the same; nothing is broadcast.
    """
    xp = namespace(xp, prediction, target)
    _check_pair(prediction, target)
    difference = prediction - target
    return _reduce(difference * difference, reduction, xp)


def mean_squared_error_backward(
    dy: Array | float, prediction: Array, target: Array, *, reduction: Reduction = "mean", xp: Namespace | None = None
) -> Array:
    """``2 (prediction - target) dy``, divided by the number of entries for the mean."""
    xp = namespace(xp, prediction, target)
    _check_pair(prediction, target)
    gradient = 2.0 * (prediction - target) * dy
    return gradient / scalar(prod(prediction.shape), prediction, xp) if reduction == "mean" else gradient


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
    return _reduce(losses, reduction, xp)


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


def _check_pair(prediction: Array, target: Array) -> None:
    require_same_dtype(prediction=prediction, target=target)
    require_shape(target, tuple(prediction.shape), "target")


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


def _reduce(losses: Array, reduction: Reduction, xp: Namespace) -> Array:
    if reduction == "none":
        return losses
    total = xp.sum(losses)
    return total / scalar(prod(losses.shape), losses, xp) if reduction == "mean" else total


class Loss:
    """Base of the losses.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    **placement
        See `xpnn.layers.placement.Placement`. A loss that names no backend computes where its prediction is.

    Raises
    ------
    TypeError, ValueError
        For arrays of another backend, dtypes or shapes that the loss does not take; the message names the loss.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("reduction", "mean"),)

    def __init__(self, reduction: Reduction = "mean", **placement: Unpack[Placement]) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction takes one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.reduction: Reduction = reduction
        own = checked(placement, type(self).__name__)
        self._backend = place(None, own) if says_where(own) else None
        self._saved: tuple[Backend, Array, Array, tuple[int, ...]] | None = None

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Compute on that backend from now on; gives this loss back."""
        self._backend = get_backend(backend, dtype)
        self._saved = None
        return self

    def __call__(self, prediction: Array, target: Array) -> Array:
        """`forward`."""
        return self.forward(prediction, target)

    def forward(self, prediction: Array, target: Array) -> Array:
        """The loss, on the device: 0-d, or of the target's shape without reduction."""
        try:
            b = self._backend or backend_of(prediction)
            for array, what in ((prediction, "prediction"), (target, "target")):
                if not b.owns(array):
                    raise TypeError(foreign(array, b, what))
            with b.context():
                value = b.down(self._forward(b.up(prediction), b.up(target), b.xp))
        except (TypeError, ValueError) as error:
            raise named(self, error) from error
        self._saved = (b, prediction, target, tuple(value.shape))
        return value

    def backward(self, dy: Array | float = 1.0) -> Array:
        """The gradient with respect to the last prediction, for the gradient ``dy`` of what follows the loss."""
        if self._saved is None:
            raise RuntimeError(f"{self!r}: backward needs a forward before it")
        b, prediction, target, shape = self._saved
        try:
            if hasattr(dy, "shape"):
                if not b.owns(dy):
                    raise TypeError(foreign(dy, b, "upstream gradient"))
                require_same_dtype(**{"prediction": prediction, "upstream gradient": dy})
                require_shape(dy, shape, "upstream gradient")
                dy = b.up(dy)
            with b.context():
                return b.down(self._backward(dy, b.up(prediction), b.up(target), b.xp))
        except (TypeError, ValueError) as error:
            raise named(self, error) from error

    def _forward(self, prediction: Array, target: Array, xp: Namespace) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no _forward")

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no _backward")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.reduction == 'mean' else f'reduction={self.reduction!r}'})"


class MeanSquaredError(Loss):
    """Mean of the squared differences; see `mean_squared_error`."""

    def _forward(self, prediction: Array, target: Array, xp: Namespace) -> Array:
        return mean_squared_error(prediction, target, reduction=self.reduction, xp=xp)

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace) -> Array:
        return mean_squared_error_backward(dy, prediction, target, reduction=self.reduction, xp=xp)


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
