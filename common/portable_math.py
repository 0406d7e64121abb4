"""Cosine, exponential function and powers by ``+ - * /`` only, which have the same bits on every machine.

`math.cos` and `pow` may differ in the last bit between C libraries.
"""

from math import pi


def cosine_pi(x: float) -> float:
    """``cos(pi x)`` to 1e-15 for small ``|x|``, by a Taylor polynomial of the exactly reduced argument."""
    x = abs(x) % 2.0
    if x > 1.0:
        x = 2.0 - x
    if x > 0.5:
        return -cosine_pi(1.0 - x)
    return _taylor(x * pi, 18) if x <= 0.25 else (0.5 - x) * pi * _taylor((0.5 - x) * pi, 19)


def _taylor(angle: float, terms: int) -> float:
    """``cos(angle)`` for even ``terms``, ``sin(angle) / angle`` for odd, up to that power of the angle."""
    square, value = angle * angle, 1.0
    for n in range(terms, 1, -2):
        value = 1.0 - value * square / (n * (n - 1))
    return value


def power(base: float, exponent: int) -> float:
    """``base^exponent`` for an exponent >= 0, by squaring."""
    value = 1.0
    while exponent:
        if exponent % 2:
            value *= base
        base, exponent = base * base, exponent // 2
    return value


def exponential(x: float) -> float:
    """``exp(x)`` to 1e-15 for small ``|x|``, by a Taylor polynomial and squaring."""
    halvings = 0
    while abs(x) > 0.5:
        x, halvings = x * 0.5, halvings + 1
    value = 1.0
    for n in range(18, 0, -1):
        value = 1.0 + value * x / n
    for _ in range(halvings):
        value *= value
    return value
