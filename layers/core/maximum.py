"""The place of a maximum, where ties and NaN are the same on every backend."""

from ...common.types import Array, Namespace
from .elementwise import scalar


def first_maximum(x: Array, xp: Namespace, axis: int = -1) -> Array:
    """Index of the first maximum along an axis; of the first NaN, if there is one."""
    nan = xp.isnan(x)
    finite = xp.argmax(xp.where(nan, scalar(-float("inf"), x, xp), x), axis=axis)
    return xp.where(xp.any(nan, axis=axis), xp.argmax(xp.astype(nan, xp.int8), axis=axis), finite)
