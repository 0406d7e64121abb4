"""The base of the losses of classes: weights of classes, ignored targets, and the check of targets on the CPU."""

from functools import partial
from math import prod
from typing import Any, ClassVar, Unpack

from ...backends import backend_of
from ...backends.recording.calls import decide
from ...backends.recording.guards import in_recording
from ...backends.recording.traced import plain
from ...common import checks
from ...common.types import Array, Namespace, is_integer_dtype
from ..core.placement import Placement
from .base import Loss, Reduction
from .class_targets import can_hold, target_shares
from .loss_weights import LossWeights


class ClassLoss(Loss):
    """Base of the losses of classes.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like, optional
        One weight for each class, ``(C,)``: on the host or an array of any backend, copied to the prediction's once.
    ignore_index : int
        Targets of this class are ignored.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For a class out of range, on the CPU. On a GPU, where the check would have to wait for the device, the loss is
        NaN instead.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("reduction", "mean"), ("weight", None), ("ignore_index", -100))

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        weight: Any = None,
        ignore_index: int = -100,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(reduction, **placement)
        self.weight = LossWeights.given(weight, "weight")
        self.ignore_index = checks.integer("ignore_index", ignore_index)

    def _forward(self, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        value = super()._forward(prediction, target, xp, **options)
        is_checked = is_integer_dtype(target.dtype) and backend_of(target).is_host
        # The loss of a class out of range is NaN. Looking for that takes less time than looking at all targets.
        if is_checked and prod(target.shape) and (in_recording() or _has_nan(value, xp)):
            classes = prediction.shape[1]
            if not decide(partial(self._are_in_range, classes, xp), target):
                self._raise_range(plain(target), classes, xp)
        return value

    def terms(self, prediction: Array, target: Array) -> Array:
        """The number of targets that are not ignored, each counted by the weight of its class."""
        if not is_integer_dtype(target.dtype):
            return self._number(float(prod(target.shape) // prediction.shape[1]), prediction, target)
        b = self._place(prediction, target)
        with b.context():
            options = self._options(b, prediction)
            share = target_shares(b.up(prediction), target, options["weight"], self.ignore_index, b.xp)[2]
            return b.down(b.xp.sum(share))

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """As `terms`."""
        if not is_integer_dtype(target.dtype):
            return float(prod(target.shape) // prediction.shape[1])
        if self.weight is not None:
            return self.terms(prediction, target)
        b = self._place(prediction, target)
        if none_ignored or not can_hold(target, self.ignore_index, b.xp):
            return float(prod(target.shape))
        with b.context():
            return b.xp.count_nonzero(target != self.ignore_index)

    def _are_in_range(self, classes: int, xp: Namespace, target: Array) -> bool:
        index = xp.astype(target, xp.int64)
        low, high = int(xp.min(index)), int(xp.max(index))
        if low >= 0 and high < classes:
            return True
        index = xp.where(index == self.ignore_index, xp.zeros_like(index), index)
        low, high = int(xp.min(index)), int(xp.max(index))
        return low >= 0 and high < classes

    def _raise_range(self, target: Array, classes: int, xp: Namespace) -> None:
        index = xp.astype(target, xp.int64)
        ignored = index == self.ignore_index
        kept = xp.where(ignored, xp.zeros_like(index), index)
        low, high = int(xp.min(kept)), int(xp.max(kept))
        # The zeros that replaced ignored targets must not be reported: a value out of range replaces them.
        index = xp.where(ignored, xp.full_like(index, low if low < 0 else high), index)
        low, high = int(xp.min(index)), int(xp.max(index))
        raise ValueError(
            f"targets run from {low} to {high}, classes from 0 to {classes - 1} (ignore_index is {self.ignore_index})"
        )


def _has_nan(x: Array, xp: Namespace) -> bool:
    return bool(xp.any(x != x) if x.ndim else x != x)
