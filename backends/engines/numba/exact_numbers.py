"""Numbers of exact numerics in compiled code: the bits of `xpnn.backends.exact`, with no product fused with a sum."""

from math import frexp, ldexp
from typing import Any

import numpy as np

from .compiler import njit

# As in `xpnn.backends.exact.powers`, `.tables` and `xpnn.backends.backend`.
_SPLITTER, _SMALLEST_RADICAND = 2.0**27 + 1.0, 2.0**-900
_LARGEST_RADICAND = 2.0**1023 * (2.0 - 2.0**-24)
_TINY, _LOWEST_SCALE, _HIGHEST_SCALE = 2.0**-1000, 2.0**-400, 2.0**600
_SMALLEST = np.float32(2.0**-125)
#: Above every whole number of a slice.
ABOVE_SLICES = 2.0**40
#: Of float64 as int64: all bits but the sign, and the bits of infinity.
MAGNITUDE, INFINITY = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(0x7FF0000000000000)


@njit(error_model="numpy")
def up(x: Any) -> Any:
    """float32 as it is stored, in float64."""
    return np.float64(0.0) if abs(x) < _SMALLEST else np.float64(x)


@njit(error_model="numpy")
def down(x: Any) -> Any:
    """float64 as it is stored in float32."""
    y = np.float32(x)
    return np.float32(0.0) if abs(y) < _SMALLEST else y


@njit(error_model="numpy")
def root(x: Any) -> Any:
    """`xpnn.backends.exact.powers.sqrt`."""
    argument = min(x, _LARGEST_RADICAND) if _SMALLEST_RADICAND <= x < np.inf else 1.0
    y = np.sqrt(argument)
    product = y * _SPLITTER
    high = product - (product - y)
    low = y - high
    rest = ((argument - high * high) - (high + high) * low) - low * low
    y = y + rest / (y + y)
    y = y if x >= _SMALLEST_RADICAND else 0.0
    y = y if x > -_SMALLEST_RADICAND else np.nan
    return y if x < np.inf else x


@njit(error_model="numpy")
def contraction_scale(largest: Any) -> Any:
    """`xpnn.backends.exact.elementary.Elementary.contraction_scale` of a magnitude."""
    if largest < _TINY:
        return 1.0
    if largest < _LOWEST_SCALE:
        return _LOWEST_SCALE
    return ldexp(1.0, frexp(largest)[1]) if largest < _HIGHEST_SCALE else np.nan


@njit(error_model="numpy")
def total(first: Any, second: Any, scale: Any, unit: Any) -> Any:
    """The sum of numbers, from the sums of their first and second slices, in which the scale is ``unit``."""
    return ((first + 0.0) + second * (1.0 / unit)) * (scale * (1.0 / unit))


@njit(error_model="numpy")
def combined(partial: Any, row: Any, first: Any, stop: Any, channels: Any) -> Any:
    """Sums ``(2, stop - first)`` of channels, over blocks and joined rows, of ``partial[:, row : row + 2]``."""
    size = stop - first
    quanta = np.zeros((2, size))
    for b in range(partial.shape[0]):
        for level in range(2):
            for at in range(first, partial.shape[2], channels):
                for c in range(size):
                    quanta[level, c] += partial[b, row + level, at + c]
    return quanta
