"""Targets of the losses of classes: their checks, and the class and weight of each.

A target y is a class for each of ``(N, ...)``, an integer. It counts with the weight ``w_y`` of its class; a target
equal to ``ignore_index`` does not count, neither in a sum nor in a mean.
"""

from functools import partial
from math import nan, prod

from array_api_compat import device

from ...backends import operations_of
from ...backends.execution.team import current_team
from ...backends.inputs import describe
from ...backends.recording.calls import decide
from ...common.types import Array, Namespace, dtype_name, is_integer_dtype
from ..core.array_checks import require_same_dtype, require_shape
from ..core.elementwise import scalar, zero

CONVERT = "convert it with target.astype('int64')"


def has_classes(scores: Array, target: Array, weight: Array | None, what: str, *, probabilities: bool = True) -> bool:
    """Whether the target has classes, not probabilities; raises an error for dtypes and shapes that do not fit."""
    require_same_dtype(**{what: scores, "weight": weight})
    if scores.ndim < 2:
        raise ValueError(f"{what} must have shape (N, C, ...), got {tuple(scores.shape)}")
    if scores.shape[1] == 0:
        raise ValueError(f"axis 1 of {what} of shape {tuple(scores.shape)} is empty: there are no classes")
    if weight is not None:
        require_shape(weight, (scores.shape[1],), "weight of classes")
    if is_integer_dtype(target.dtype):
        require_shape(target, (scores.shape[0], *scores.shape[2:]), "target of classes")
        return True
    if not probabilities:
        raise TypeError(f"target must be classes, an array of integers, got {describe(target)}; {CONVERT}")
    if dtype_name(target.dtype) == "bool":
        raise TypeError(
            f"target must be classes, an array of integers, or probabilities, of the dtype of the {what}; got "
            f"{describe(target)}; {CONVERT}, or for a separate yes or no in each entry use "
            "BinaryCrossEntropyWithLogits with floats"
        )
    if target.ndim == scores.ndim - 1:
        raise TypeError(
            f"target must be classes, an array of integers {(scores.shape[0], *scores.shape[2:])}, or probabilities, "
            f"{tuple(scores.shape)}; got {describe(target)}; {CONVERT}"
        )
    require_same_dtype(**{what: scores, "target": target})
    require_shape(target, tuple(scores.shape), "target of probabilities")
    return False


def can_hold(target: Array, value: int, xp: Namespace) -> bool:
    """Whether an integer is in the range of an integer array's dtype."""
    limits = xp.iinfo(target.dtype)
    return int(limits.min) <= value <= int(limits.max)


def count_equally(target: Array, classes: int, ignore_index: int, xp: Namespace) -> bool:
    """Whether it is known that all targets are classes and none is ignored.

    The targets are read only where that is cheap, and not in a team, whose workers must all use the same algorithm.
    """
    ops = operations_of(xp)
    if not ops.cheap_reads or not ops.free_order or current_team() is not None or not prod(target.shape):
        return False
    return decide(partial(_all_count, classes, ignore_index, xp), target)


def _all_count(classes: int, ignore_index: int, xp: Namespace, target: Array) -> bool:
    low, high = int(xp.min(target)), int(xp.max(target))
    return low >= 0 and high < classes and not low <= ignore_index <= high


def target_shares(
    scores: Array, target: Array, weight: Array | None, ignore_index: int, xp: Namespace
) -> tuple[Array, Array, Array]:
    """``index``, ``kept`` and ``share``, ``(N, 1, ...)``: the classes, whether they count, and by which weight.

    The share is 0 for an ignored target, and NaN for one that is no class.
    """
    index = xp.expand_dims(xp.astype(target, xp.int64), axis=1)
    kept = index != ignore_index
    inside = xp.logical_and(index >= 0, index < scores.shape[1])
    index = xp.where(inside, index, xp.zeros_like(index))
    if weight is None:
        share = scalar(1.0, scores, xp)
    else:
        share = xp.reshape(xp.take(weight, xp.reshape(index, (-1,)), axis=0), index.shape)
    share = xp.where(inside, share, scalar(nan, scores, xp))
    return index, kept, xp.where(kept, share, zero(scores, xp))


def weighted_nll(log_p: Array, index: Array, share: Array, xp: Namespace) -> Array:
    """``-w_y log p_y``, ``(N, ...)``; 0 where the share is 0."""
    losses = -xp.take_along_axis(log_p, index, axis=1)
    return (xp.where(share == 0.0, share, losses) * share)[:, 0, ...]


def one_hot(scores: Array, index: Array, xp: Namespace) -> Array:
    """``[c = y]``, of the scores' shape."""
    classes = xp.arange(scores.shape[1], dtype=index.dtype, device=device(scores))
    return xp.astype(along_classes(classes, scores, xp) == index, scores.dtype)


def along_classes(vector: Array, scores: Array, xp: Namespace) -> Array:
    """``(C,)`` as ``(1, C, 1, ...)``."""
    return xp.reshape(vector, (1, -1, *(1,) * (scores.ndim - 2)))
