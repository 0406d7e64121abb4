"""Coefficients of the error function, for array functions and compiled code.

Near 0 ``erf`` is its Taylor series. Elsewhere ``erfc(x) = exp(-x^2) q(v) / (x + 3)`` for ``x >= 1/2``, where ``q`` is a
polynomial in ``v = (7 u - 1) / 6``, ``u = (x - 3) / (x + 3)``, which goes from -1 to 1 as ``x`` goes from 1/2 to
infinity. Its coefficients are those of the Chebyshev interpolant of ``exp(x^2) erfc(x) (x + 3)`` at 64 points, computed
with 60 digits and truncated where they are below 2e-17.
"""

from math import factorial, pi, sqrt

#: Below it erf is the series, from it on erfc the polynomial.
NEAR = 0.5
#: erfc is 0 in float64 from here on.
FAR = 30.0

#: 2 / sqrt(pi) * (-1)^n / (n! (2n + 1)), highest power of x^2 first; the next one is below 2e-17 at x = 1/2.
SERIES = tuple(2.0 / sqrt(pi) * (1.0, -1.0)[n % 2] / (factorial(n) * (2 * n + 1)) for n in range(11, -1, -1))

#: q, highest power of v first.
TAIL = (
    1.0385156848625515e-10,
    -2.976714047197926e-11,
    -1.2429471011437762e-09,
    -3.900054625217945e-11,
    9.106288412622764e-09,
    3.5659347723468817e-09,
    -5.9387617561080265e-08,
    -3.9936462837542005e-08,
    4.0843464428918565e-07,
    2.7801976897934924e-07,
    -3.1790388431884694e-06,
    -6.858062729764738e-07,
    2.7642784811204553e-05,
    -2.528629358207439e-05,
    -0.00023152726656230457,
    0.0007631143558469824,
    0.000575279902887478,
    -0.012338549339293858,
    0.0541319082496085,
    -0.15596654978029198,
    0.3460562090899474,
    -0.6277955952806215,
    0.9589962033754297,
)
