"""The inverse of the normal distribution inside jobs, with the bits of `xpnn.backends.random.normal_quantile`.

The same operations in the same order, for one number; where array functions compute both sides of a choice, one is.
"""

from typing import Any

from ...random.normal_quantile import CENTRE, MIDDLE, TAIL
from .compiler import njit


@njit(error_model="numpy")
def normal_quantile(p: Any) -> Any:
    """Inverse of the standard normal distribution for ``0 < p < 1`` in float64 (AS 241)."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(CENTRE[0], CENTRE[1], 0.180625 - q * q)
    r = _sqrt(-_log(min(p, 1.0 - p)))
    outer = _ratio(MIDDLE[0], MIDDLE[1], r - 1.6) if r <= 5.0 else _ratio(TAIL[0], TAIL[1], r - 5.0)
    return -outer if q < 0.0 else outer


@njit(error_model="numpy")
def _ratio(numerator: Any, denominator: Any, r: Any) -> Any:
    above, below = r * numerator[0] + numerator[1], r * denominator[0] + denominator[1]
    for i in range(2, 8):
        above, below = above * r + numerator[i], below * r + denominator[i]
    return above / below


@njit(error_model="numpy")
def _sqrt(a: Any) -> Any:
    root = a * 0.14 + 1.2
    for _ in range(6):
        root = (root + a / root) * 0.5
    return root


@njit(error_model="numpy")
def _log(p: Any) -> Any:
    exponent = 0.0
    for step in (32, 16, 8, 4, 2, 1):
        if p < 2.0 ** (1 - step):
            p, exponent = p * 2.0**step, exponent - step
    if p < 1.0:
        p, exponent = p * 2.0, exponent - 1.0
    s = (p - 1.0) / (p + 1.0)
    square = s * s
    series = square * (1.0 / 33.0) + 1.0 / 31.0
    for odd in range(29, 0, -2):
        series = series * square + 1.0 / odd
    return s * series * 2.0 + exponent * 0.6931471805599453
