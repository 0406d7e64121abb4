"""What every loss is: a function of a prediction and a target to a number, and its gradient.

A loss is called as ``loss(prediction, target)``; `Loss.backward` takes the gradient of what comes after it (1 unless
given). ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.
"""

from math import prod
from typing import Any, ClassVar, Literal, Self, TypeAlias, Unpack

from ...backends import Backend, BackendLike, backend_of, get_backend
from ...backends.types import Array, DType, Namespace
from ..arrays import require_same_dtype, require_shape, scalar
from ..base import named
from ..placement import Placement, checked, foreign, place, says_where

Reduction: TypeAlias = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def check_pair(prediction: Array, target: Array) -> None:
    """Raise unless prediction and target have one dtype and one shape."""
    require_same_dtype(prediction=prediction, target=target)
    require_shape(target, tuple(prediction.shape), "target")


def reduce(losses: Array, reduction: Reduction, xp: Namespace) -> Array:
    """Mean or sum of all losses, or the losses as they are."""
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
