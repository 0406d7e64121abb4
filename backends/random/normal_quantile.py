"""The inverse of the normal distribution with the same bits on every library.

It is evaluated in float64 with ``+ - * /`` only, one operation at a time. IEEE 754 fixes the result of each, and
every library conforms to it. `log`, `cos` (of the Box-Muller transform) and, in PyTorch on a CPU, even `sqrt` differ in
the last bit from library to library.

References
----------
M. J. Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37
(1988) 477-484.
"""

from ...common.types import Array, Namespace

# Coefficients of AS 241, routine PPND16, numerator and denominator, highest power first.
CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
MIDDLE = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


def normal_quantile(p: Array, xp: Namespace) -> Array:
    """Inverse of the standard normal distribution for ``0 < p < 1`` in float64 (AS 241)."""
    q = p - 0.5
    centre = q * _ratio(CENTRE, 0.180625 - q * q)
    smaller = xp.minimum(p, 1.0 - p)
    r = _sqrt(-_log(smaller, xp))
    outer = xp.where(r <= 5.0, _ratio(MIDDLE, r - 1.6), _ratio(TAIL, r - 5.0))
    outer = xp.where(q < 0.0, -outer, outer)
    return xp.where(xp.abs(q) <= 0.425, centre, outer)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Array) -> Array:
    numerator, denominator = coefficients
    above, below = r * numerator[0] + numerator[1], r * denominator[0] + denominator[1]
    for a, b in zip(numerator[2:], denominator[2:], strict=True):
        above, below = above * r + a, below * r + b
    return above / below


def _sqrt(a: Array) -> Array:
    """Square root for ``0.6 < a < 45`` by Heron's iteration from a linear guess, which is within 60%."""
    root = a * 0.14 + 1.2
    for _ in range(6):
        root = (root + a / root) * 0.5
    return root


def _log(p: Array, xp: Namespace) -> Array:
    """Natural logarithm for ``2**-64 < p <= 0.5``, from exact steps and steps fixed by IEEE 754 only.

    ``p`` is brought to ``[1, 2)`` by multiplying with powers of two (exact); then ``log m = 2 artanh((m-1)/(m+1))``,
    whose odd series at ``|s| <= 1/3`` reaches float64 with 16 terms.
    """
    exponent = xp.zeros_like(p)
    for step in (32, 16, 8, 4, 2, 1):
        small = p < 2.0 ** (1 - step)
        p = xp.where(small, p * 2.0**step, p)
        exponent = xp.where(small, exponent - step, exponent)
    small = p < 1.0
    p = xp.where(small, p * 2.0, p)
    exponent = xp.where(small, exponent - 1.0, exponent)
    s = (p - 1.0) / (p + 1.0)
    square = s * s
    series = square * (1.0 / 33.0) + 1.0 / 31.0
    for odd in range(29, 0, -2):
        series = series * square + 1.0 / odd
    return s * series * 2.0 + exponent * 0.6931471805599453
