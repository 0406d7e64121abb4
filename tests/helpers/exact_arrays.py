"""Arrays for tests of exact numerics: numbers that show a wrong rounding, and the comparison of bits."""

import numpy as np

from xpnn.backends.overrides import Choices, using


def hostile(shape, dtype="float32", seed=0, with_nan=True):
    """Numbers of very different sizes, zeros, subnormals, and a NaN and infinities in some of several channels."""
    rng = np.random.default_rng(seed)
    largest = 30 if dtype == "float32" else 200
    x = rng.standard_normal(shape) * 10.0 ** rng.integers(-largest, largest, shape)
    x[rng.random(shape) < 0.2] = -0.0
    x[rng.random(shape) < 0.1] = 1e-40 if dtype == "float32" else 1e-310
    x[rng.random(shape) < 0.05] = 2.0**-125
    x = x.astype(dtype)
    for place, value in ((1, np.nan), (2, np.inf), (3, -np.inf)):
        if with_nan and shape[-1] > 3 and x.size:
            x.reshape(-1, shape[-1])[0, place] = value
    return x


def ordinary(shape, seed=0):
    """Normally distributed float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def bits(x):
    """Integers that are equal for equal bits, and for any NaN."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return x
    return np.where(np.isnan(x), -1, np.ascontiguousarray(x).view(np.int64 if x.dtype == np.float64 else np.int32))


def same_bits(found, expected):
    """Whether all arrays have the same dtype, shape and bits."""
    pairs = list(zip(found, expected, strict=True))
    return all(a.dtype == d.dtype and a.shape == d.shape and np.array_equal(bits(a), bits(d)) for a, d in pairs)


def both_ways(function, *arguments):
    """The results, lists of arrays, by compiled jobs and by array functions."""
    with using(Choices(kernels=True, large=True)) as found:
        compiled = function(*arguments)
    assert "kernels" in found, "array functions computed"
    with using(Choices(kernels=False)), np.errstate(all="ignore"):
        return compiled, function(*arguments)
