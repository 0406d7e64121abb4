"""Activations that cut off what is beyond a limit.

=========  ==========================  =======================================
layer      f(x)                        f'(x)
=========  ==========================  =======================================
HardTanh   min(max(x, low), high)      1 for low < x < high, else 0
ReLU6      min(max(x, 0), 6)           1 for 0 < x < 6, else 0
Clip       min(max(x, low), high)      1 for low <= x <= high, else 0
Threshold  x for x > threshold, else   1 for x > threshold, else 0
           value
=========  ==========================  =======================================

At the limits the gradients are PyTorch's: those of `torch.nn.Hardtanh` and `torch.nn.ReLU6` are 0 there, that of
`torch.clamp`, which is `Clip` here, is 1. For NaN both the result and the gradient are NaN. -0 becomes 0 if a limit
is 0.

Sources: R. Collobert, "Large scale machine learning", 2004 (hard tanh); A. Krizhevsky, "Convolutional deep belief
networks on CIFAR-10", 2010 (ReLU6); ONNX, operator Clip.
"""

from math import inf
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import keep_nan, scalar
from ..core.placement import Placement
from .base import Activation, prepare, prepare_gradient


@without_graph
def hard_tanh(x: Array, *, min_val: float = -1.0, max_val: float = 1.0, xp: Namespace | None = None) -> Array:
    """``min(max(x, min_val), max_val)``, ``min_val < max_val``."""
    xp, (low, high) = prepare(xp, input=x), _checked_range(min_val, max_val)
    return _limited(x, low, high, xp)


@without_graph
def hard_tanh_backward(
    dy: Array, x: Array, *, min_val: float = -1.0, max_val: float = 1.0, xp: Namespace | None = None
) -> Array:
    """``dx = dy`` where ``min_val < x < max_val``, else 0; NaN where ``x`` is."""
    xp, (low, high) = prepare_gradient(xp, dy=dy, input=x), _checked_range(min_val, max_val)
    return keep_nan(operations_of(xp).select(xp.logical_and(x > low, x < high), dy), x, xp)


@without_graph
def relu6(x: Array, *, xp: Namespace | None = None) -> Array:
    """``min(max(x, 0), 6)``."""
    xp = prepare(xp, input=x)
    return _limited(x, 0.0, 6.0, xp)


@without_graph
def relu6_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``0 < x < 6``, else 0; NaN where ``x`` is."""
    return hard_tanh_backward(dy, x, min_val=0.0, max_val=6.0, xp=xp)


@without_graph
def clip(x: Array, *, min: float | None = None, max: float | None = None, xp: Namespace | None = None) -> Array:
    """``x`` limited to ``[min, max]``; None is no limit. If ``min`` is above ``max``, all is ``max``."""
    xp, (low, high) = prepare(xp, input=x), (_limit("min", min, -inf), _limit("max", max, inf))
    return _limited(x, low, high, xp)


@without_graph
def clip_backward(
    dy: Array, x: Array, *, min: float | None = None, max: float | None = None, xp: Namespace | None = None
) -> Array:
    """``dx = dy`` where ``min <= x <= max``, else 0; NaN where ``x`` is."""
    xp, (low, high) = prepare_gradient(xp, dy=dy, input=x), (_limit("min", min, -inf), _limit("max", max, inf))
    return keep_nan(operations_of(xp).select(xp.logical_and(x >= low, x <= high), dy), x, xp)


@without_graph
def threshold(x: Array, threshold: float, value: float, *, xp: Namespace | None = None) -> Array:
    """``x`` where it is above the threshold, else ``value``."""
    xp, (least, value) = prepare(xp, input=x), _checked_threshold(threshold, value)
    return xp.where(x <= least, scalar(value, x, xp), x)


@without_graph
def threshold_backward(dy: Array, x: Array, threshold: float, value: float, *, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above the threshold, else 0; NaN where ``x`` is."""
    xp, (least, _) = prepare_gradient(xp, dy=dy, input=x), _checked_threshold(threshold, value)
    return keep_nan(operations_of(xp).select(x > least, dy), x, xp)


def _limited(x: Array, low: float, high: float, xp: Namespace) -> Array:
    y = operations_of(xp).clamp(x, low, high)
    # Libraries disagree about the larger of 0 and -0.
    return y + 0.0 if 0.0 in (low, high) else y


def _checked_range(min_val: float, max_val: float) -> tuple[float, float]:
    low, high = checks.number("min_val", min_val, infinite=True), checks.number("max_val", max_val, infinite=True)
    if low >= high:
        raise ValueError(f"min_val must be below max_val, got {min_val!r} and {max_val!r}")
    return low, high


def _limit(name: str, value: float | None, unlimited: float) -> float:
    return unlimited if value is None else checks.number(name, value, infinite=True)


def _checked_threshold(threshold: float, value: float) -> tuple[float, float]:
    return checks.number("threshold", threshold), checks.number("value", value)


class HardTanh(Activation):
    """``x`` limited to ``[min_val, max_val]``, by default to ``[-1, 1]``; see `hard_tanh`."""

    function = staticmethod(hard_tanh)
    gradient = staticmethod(hard_tanh_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("min_val", -1.0), ("max_val", 1.0))

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.min_val, self.max_val = _checked_range(min_val, max_val)


class ReLU6(Activation):
    """``x`` limited to ``[0, 6]``; see `relu6`."""

    function = staticmethod(relu6)
    gradient = staticmethod(relu6_backward)


class Clip(Activation):
    """``x`` limited to ``[min, max]``; see `clip`.

    Parameters
    ----------
    min, max : float, optional
        None is no limit.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(clip)
    gradient = staticmethod(clip_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("min", None), ("max", None))

    def __init__(self, min: float | None = None, max: float | None = None, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.min = None if min is None else _limit("min", min, -inf)
        self.max = None if max is None else _limit("max", max, inf)


class Threshold(Activation):
    """``x`` where it is above ``threshold``, else ``value``; see `threshold`.

    Parameters
    ----------
    threshold, value : float
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    function = staticmethod(threshold)
    gradient = staticmethod(threshold_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("threshold", ...), ("value", ...))

    def __init__(self, threshold: float, value: float, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.threshold, self.value = _checked_threshold(threshold, value)
