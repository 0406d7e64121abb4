"""Inputs of the cases: functions of a random stream and a shape that return a float32 array on the host.

They use the library's own generator and NumPy functions with the same result everywhere, so the inputs of a case are
the same on every machine.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ...backends import Generator
from ..compare import Host

Maker: TypeAlias = Callable[[Generator, tuple[int, ...]], Host]


def real(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Uniform from -2 to 2."""
    return np.asarray(generator.uniform(shape, -2.0, 2.0, "float32", "numpy"))


def positive(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From 0.5 to 2.5, so that no terms cancel in sums."""
    return np.asarray(np.abs(real(generator, shape)) + np.float32(0.5))


def negative(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From -2.5 to -0.5, where a padding of 0 would be every maximum."""
    return np.asarray(-positive(generator, shape))


def ties(generator: Generator, shape: tuple[int, ...]) -> Host:
    """The integers -1, 0 and 1: most windows have their maximum more than once."""
    return np.asarray(np.floor(real(generator, shape) * np.float32(0.75) + np.float32(0.5)))


def constant(generator: Generator, shape: tuple[int, ...]) -> Host:
    """1.5 everywhere: all cells of a window are tied, and every variance is 0."""
    return np.full(shape, np.float32(1.5))


def zeros(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Zeros of both signs, and a number in every third cell: kinks, and norms of 0."""
    x = real(generator, shape)
    place = np.arange(x.size).reshape(shape) % 3
    return np.where(place == 0, x, np.where(place == 1, np.float32(0.0), np.float32(-0.0)))


def windows_of_zeros(generator: Generator, shape: tuple[int, ...]) -> Host:
    """0 in the first half of the last axis."""
    x = real(generator, shape)
    x[..., : shape[-1] // 2] = 0.0
    return x


def with_nan(generator: Generator, shape: tuple[int, ...]) -> Host:
    """One NaN, in the middle of the first sample."""
    return _with_one(np.nan, real(generator, shape))


def with_infinity(generator: Generator, shape: tuple[int, ...]) -> Host:
    """One infinity, in the middle of the first sample."""
    return _with_one(np.inf, real(generator, shape))


def with_minus_infinity(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Minus infinity in two cells of three: some windows have nothing else."""
    x = real(generator, shape)
    return np.where(np.arange(x.size).reshape(shape) % 3 == 0, x, np.float32(-np.inf))


def minus_infinity(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Minus infinity everywhere."""
    return np.full(shape, np.float32(-np.inf))


def specials(generator: Generator, shape: tuple[int, ...]) -> Host:
    """NaN, both infinities, both zeros, and numbers."""
    x = real(generator, shape)
    flat = x.reshape(-1)
    flat[:5] = (np.nan, np.inf, -np.inf, 0.0, -0.0)
    return x


def wide(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Magnitudes from 1e-30 to 1e4 with both signs; exp overflows or underflows for many of them.

    For none of them exp is subnormal, which some devices flush to 0.
    """
    x = real(generator, shape)
    sizes = np.asarray(
        [1e-30, 1e-12, 1e-6, 1e-3, 0.1, 1.0, 5.0, 9.0, 17.0, 40.0, 80.0, 200.0, 1e3, 1e4], dtype=np.float32
    )
    return np.where(x < 0, np.float32(-1), np.float32(1)) * np.resize(sizes, shape)


def tails(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From -8 to 8, with kinks at 3, and numbers for which 1 + erf is almost 0."""
    return real(generator, shape) * np.float32(4.0)


def spread(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From -40 to 40: logits of predictions with probabilities near 0 and 1."""
    return real(generator, shape) * np.float32(20.0)


def whole(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Integers from -8 to 8: the kinks of piecewise functions."""
    return np.round(tails(generator, shape))


def far(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From -200 to 200: in float32 the exponentials overflow, and those of differences underflow to 0."""
    return real(generator, shape) * np.float32(100.0)


def shifted(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From 98 to 102: a variance that is small compared with the mean."""
    return real(generator, shape) + np.float32(100.0)


def probability(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From 0.1 to 0.9."""
    return (real(generator, shape) + np.float32(2.5)) * np.float32(0.2)


def sure(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Probabilities; every third is 0 and every third 1."""
    place = np.arange(int(np.prod(shape))).reshape(shape) % 3
    return np.where(place == 0, probability(generator, shape), np.where(place == 1, np.float32(0), np.float32(1)))


def binary(generator: Generator, shape: tuple[int, ...]) -> Host:
    """0 or 1."""
    return (positive(generator, shape) > 1.5).astype(np.float32)


def distribution(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Probabilities that add up to 1 along axis 1."""
    wide = positive(generator, shape).astype(np.float64)
    # Added in a fixed order; that of NumPy's sum depends on the processor.
    total = sum(np.moveaxis(wide, 1, 0), np.zeros(()))
    return np.asarray((wide / np.expand_dims(total, 1)).astype(np.float32))


def certain(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Distributions over axis 1 with one entry of 1 and others of 0."""
    chosen = np.expand_dims(classes(generator, shape), 1)
    return np.asarray(np.arange(shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2)) == chosen, dtype=np.float32)


def log_probability(generator: Generator, shape: tuple[int, ...]) -> Host:
    """From -2.5 to -0.5; the formulas don't require that the probabilities add up to 1."""
    return negative(generator, shape)


def indices(generator: Generator, shape: tuple[int, ...], rows: int) -> Host:
    """Integers from 0 to ``rows - 1``, most of them more than once if there are more indices than rows."""
    return np.asarray(generator.permutation(int(np.prod(shape))).reshape(shape) % rows)


def classes(generator: Generator, shape: tuple[int, ...]) -> Host:
    """Integers below the size of axis 1, one for each position of the other axes."""
    positions = (shape[0], *shape[2:])
    return np.asarray(generator.permutation(int(np.prod(positions))).reshape(positions) % shape[1])


def classes_with_gaps(generator: Generator, shape: tuple[int, ...]) -> Host:
    """`classes`, but every third is -100, the class that losses ignore."""
    found = classes(generator, shape)
    return np.where(np.arange(found.size).reshape(found.shape) % 3 == 1, -100, found)


def _with_one(value: float, x: Host) -> Host:
    """Set a value in the middle of the first sample, where, unlike in a corner, several windows cover it."""
    x[(0, *(n // 2 for n in x.shape[1:]))] = value
    return x
