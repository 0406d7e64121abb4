"""Elementwise functions with the same result on every backend, NaN and infinity included.

The standard's own `clip` and `sign` make the host wait for the device on CuPy, and libraries disagree about the sign
of NaN and about division by a Python number.
"""

from math import inf
from typing import Any

from array_api_compat import device

from ...backends import operations_of
from ...common.types import Array, Namespace


def scalar(value: float, like: Array, xp: Namespace) -> Array:
    """A 0-d array of the dtype of ``like``, on its device.

    For division: some devices divide an array by a Python number by multiplying it by a rounded reciprocal.
    """
    return xp.full((), value, dtype=like.dtype, device=device(like))


def zero(like: Array, xp: Namespace) -> Array:
    """A 0-d zero of the dtype of ``like``, on its device."""
    return xp.zeros((), dtype=like.dtype, device=device(like))


def clamp(x: Array, low: Any, high: Any, xp: Namespace) -> Array:
    """``x`` limited to ``[low, high]``; NaN stays NaN."""
    return operations_of(xp).clamp(x, low, high)


def at_least(x: Array, low: float, xp: Namespace) -> Array:
    """The larger of ``x`` and ``low``; NaN stays NaN."""
    return operations_of(xp).clamp(x, low)


def sign(x: Array, xp: Namespace) -> Array:
    """-1, 0 or 1; NaN stays NaN."""
    found = xp.astype(x > 0.0, x.dtype) - xp.astype(x < 0.0, x.dtype)
    return xp.where(xp.isnan(x), x, found)


def keep_nan(value: Array, x: Array, xp: Namespace) -> Array:
    """``value``, but NaN where ``x`` is NaN."""
    return xp.where(x == x, value, x)


def times(x: Array, factor: Array, xp: Namespace) -> Array:
    """``x * factor`` with infinity times 0 equal to 0; NaN stays NaN."""
    return factor * xp.where(xp.logical_and(factor == 0.0, xp.abs(x) == inf), zero(x, xp), x)
