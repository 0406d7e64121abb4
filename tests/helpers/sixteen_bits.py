"""Rounding to float16 and bfloat16 in float64 arithmetic, independent of every library's conversions."""

import numpy as np

#: Bits of the significand, smallest exponent of a normal number, largest number.
FORMATS = {"float16": (11, -14, 65504.0), "bfloat16": (8, -126, (2.0 - 2.0**-7) * 2.0**127)}


def rounded(x, precision):
    """float32 numbers rounded to nearest, ties to even, as float64."""
    bits, least, most = FORMATS[precision]
    x = np.asarray(x, np.float64)
    finite = np.where(np.isfinite(x), x, 0.0)
    exponent = np.maximum(np.frexp(finite)[1] - 1, least)
    unit = np.ldexp(1.0, exponent - bits + 1)
    # NumPy's rint rounds ties to even.
    y = np.rint(finite / unit) * unit
    y = np.where(np.abs(y) > most, np.copysign(np.inf, y), y)
    return np.where(np.isfinite(x), y, x)
