"""Slices of numbers and of weights in jobs, for `xpnn.backends.engines.numba.exact_columns`.

Weights are ``(F, C, K)``, and ``(C, F, K)`` with the cells in reverse order if a problem is rotated. Columns have the
cells of the kernel before the channels. Factors are powers of two by which operands are multiplied before they are
rounded, and include the bits of a slice; a factor may be NaN, and then slices are 0.
"""

from typing import Any

import numpy as np

from .compiler import helper
from .exact_numbers import ABOVE_SLICES, MAGNITUDE
from .jobs import INT, NUMBER, job, read, write


@helper
def first_slice(v: Any) -> Any:
    """``v`` rounded; 0 if it is not finite."""
    whole = np.rint(v)
    return whole if abs(whole) < ABOVE_SLICES else 0.0


@helper
def second_slice(v: Any, again: Any) -> Any:
    """The remainder of ``v`` times ``again``, rounded."""
    whole = np.rint((v - np.rint(v)) * again)
    return whole if abs(whole) < ABOVE_SLICES else 0.0


@helper
def scale_of(row: Any) -> Any:
    """The scale of a contraction's row: see `xpnn.backends.exact.elementary.Elementary.contraction_scale`."""
    most = np.int64(0)
    bits = row.view(np.int64)
    for i in range(len(bits)):
        most = max(most, bits[i] & MAGNITUDE)
    exponent = (most >> 52) - 1022
    if exponent < -999:
        return 1.0
    if exponent > 600:
        return np.nan
    return np.ldexp(1.0, max(exponent, np.int64(-400)))


@job(read(3), read(1), write(2), NUMBER, *[INT] * 3)
def split_weight(
    item: Any, weight: Any, factors: Any, slices: Any, again: Any, count: Any, rotated: Any, per: Any
) -> None:
    """``weight`` times ``factors (F,)`` to slices ``(K C, count F)``; an item has ``per`` channels."""
    channels, features = weight.shape[0 if rotated else 1], weight.shape[1 if rotated else 0]
    cells = weight.shape[2]
    for c in range(item * per, min(channels, (item + 1) * per)):
        for f in range(features):
            for k in range(cells):
                v = (weight[c, f, cells - 1 - k] if rotated else weight[f, c, k]) * factors[f]
                slices[k * channels + c, f] = first_slice(v)
                if count == 2:
                    slices[k * channels + c, features + f] = second_slice(v, again)


@job(read(3), read(1), write(2), NUMBER, INT)
def split_adjoint(item: Any, weight: Any, factors: Any, slices: Any, again: Any, count: Any) -> None:
    """``weight`` times ``factors (K C,)`` to slices ``(F, count K C)``; an item is a filter."""
    channels, cells = weight.shape[1], weight.shape[2]
    for k in range(cells):
        for c in range(channels):
            v = weight[item, c, k] * factors[k * channels + c]
            slices[item, k * channels + c] = first_slice(v)
            if count == 2:
                slices[item, cells * channels + k * channels + c] = second_slice(v, again)
