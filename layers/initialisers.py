"""Initial values of parameters.

An initialiser is a function of a shape, a generator of random numbers and a backend. It draws only from that generator,
so the initial bits of a parameter depend on the seed and on its full name in the model, and neither on the order of
creation nor on the backend.

The fans are, for a weight ``(out, in, *kernel)``: ``fan_in = in * prod(kernel)``, ``fan_out = out * prod(kernel)``.
"""

from collections.abc import Callable
from functools import partial
from math import prod, sqrt
from typing import TypeAlias

from ..backends import Backend, Generator
from ..common import checks
from ..common.types import Array

Initialiser: TypeAlias = Callable[[tuple[int, ...], Generator, Backend], Array]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight."""
    if len(shape) < 2:
        raise ValueError(f"weight must have shape (out, in, *kernel) for its fans, got {shape}")
    cells = prod(shape[2:])
    return shape[1] * cells, shape[0] * cells


def constant(value: float = 0.0) -> Initialiser:
    """Every entry is ``value``."""
    return partial(_constant, value=checks.number("value", value, infinite=True, nan=True))


def uniform(bound: float) -> Initialiser:
    """Uniform on ``[-bound, bound)``."""
    return partial(_uniform, bound=checks.number("bound", bound, least=0))


def normal(std: float, mean: float = 0.0) -> Initialiser:
    """Normal with standard deviation ``std``."""
    return partial(_normal, std=checks.number("std", std, least=0), mean=checks.number("mean", mean))


def he_uniform() -> Initialiser:
    """Uniform, variance ``2 / fan_in`` (K. He et al., "Delving deep into rectifiers", 2015)."""
    return partial(_scaled_uniform, gain=2.0, fan_in=1.0)


def he_normal() -> Initialiser:
    """Normal, variance ``2 / fan_in`` (K. He et al., 2015)."""
    return partial(_scaled_normal, gain=2.0, fan_in=1.0)


def glorot_uniform() -> Initialiser:
    """Uniform, variance ``2 / (fan_in + fan_out)`` (X. Glorot and Y. Bengio, 2010)."""
    return partial(_scaled_uniform, gain=1.0, fan_in=0.5)


def glorot_normal() -> Initialiser:
    """Normal, variance ``2 / (fan_in + fan_out)`` (X. Glorot and Y. Bengio, 2010)."""
    return partial(_scaled_normal, gain=1.0, fan_in=0.5)


def lecun_uniform() -> Initialiser:
    """Uniform, variance ``1 / fan_in`` (Y. LeCun et al., "Efficient BackProp", 1998)."""
    return partial(_scaled_uniform, gain=1.0, fan_in=1.0)


def lecun_normal() -> Initialiser:
    """Normal, variance ``1 / fan_in`` (Y. LeCun et al., 1998)."""
    return partial(_scaled_normal, gain=1.0, fan_in=1.0)


def orthogonal(gain: float = 1.0) -> Initialiser:
    """Orthonormal rows (or columns, if there are fewer), times ``gain``, of the weight as a matrix ``(out, -1)``.

    By Gram-Schmidt, twice for each vector, on the host in float64 with sums in a fixed order, because the last bits of
    a library's QR differ between machines. Source: A. Saxe, J. McClelland, S. Ganguli, 2013.
    """
    return partial(_orthogonal, gain=checks.number("gain", gain))


# Partial functions rather than closures, so that a layer can be pickled before its parameters are created.


def _constant(shape: tuple[int, ...], generator: Generator, backend: Backend, *, value: float) -> Array:
    return backend.xp.full(shape, value, dtype=backend.dtype, device=backend.device)


def _uniform(shape: tuple[int, ...], generator: Generator, backend: Backend, *, bound: float) -> Array:
    return generator.uniform(shape, -bound, bound, backend=backend)


def _normal(shape: tuple[int, ...], generator: Generator, backend: Backend, *, std: float, mean: float) -> Array:
    return generator.normal(shape, mean, std, backend=backend)


def _scaled_uniform(
    shape: tuple[int, ...], generator: Generator, backend: Backend, *, gain: float, fan_in: float
) -> Array:
    return _uniform(shape, generator, backend, bound=sqrt(3.0 * _variance(shape, gain, fan_in)))


def _scaled_normal(
    shape: tuple[int, ...], generator: Generator, backend: Backend, *, gain: float, fan_in: float
) -> Array:
    return _normal(shape, generator, backend, std=sqrt(_variance(shape, gain, fan_in)), mean=0.0)


def _variance(shape: tuple[int, ...], gain: float, fan_in: float) -> float:
    """``gain`` divided by the average of both fans with weights ``fan_in`` and ``1 - fan_in``."""
    before, after = fans(shape)
    return gain / (fan_in * before + (1.0 - fan_in) * after)


def _orthogonal(shape: tuple[int, ...], generator: Generator, backend: Backend, *, gain: float) -> Array:
    fans(shape)
    rows, columns = shape[0], prod(shape[1:])
    count, length = min(rows, columns), max(rows, columns)
    vectors = generator.normal((count, length), dtype="float64", backend="numpy")
    for i in range(count):
        for _ in range(2):
            along = _sum_last(vectors[:i, :] * vectors[i, :])
            vectors[i, :] -= _sum_last((vectors[:i, :] * along[:, None]).T)
        vectors[i, :] *= 1.0 / sqrt(float(_sum_last(vectors[i : i + 1, :] * vectors[i : i + 1, :])[0]))
    matrix = vectors if rows <= columns else vectors.T
    return backend.asarray((matrix * gain).reshape(shape), backend.dtype)


def _sum_last(x: Array) -> Array:
    """Sum over the last axis of a matrix by pairwise halving, in the same order of additions everywhere."""
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        summed = x[:, :half] + x[:, half : 2 * half]
        if x.shape[1] % 2:
            summed[:, 0] += x[:, -1]
        x = summed
    return x[:, 0] if x.shape[1] else x.sum(axis=1)
