"""Optimizer steps, each in one pass over memory.

Every operation is rounded separately, in the order of the array functions in `xpnn.training.optimizers.rules`, so that
the bits are the same.
"""

from math import sqrt
from typing import Any

import numpy as np

from ....common.types import Array
from .compiler import FLOAT, INT, READ1, WRITE1, compiled, contiguous


@compiled(WRITE1, READ1, INT, FLOAT, FLOAT, contract=False)
def _sgd_step(value: Any, gradient: Any, decays: Any, decay: Any, rate: Any) -> None:
    for i in range(value.shape[0]):
        g = gradient[i] + value[i] * decay if decays else gradient[i]
        value[i] -= g * rate


@compiled(WRITE1, WRITE1, READ1, INT, FLOAT, FLOAT, FLOAT, INT, FLOAT, FLOAT, contract=False)
def _momentum_step(
    value: Any,
    velocity: Any,
    gradient: Any,
    decays: Any,
    decay: Any,
    keep: Any,
    share: Any,
    ahead: Any,
    momentum: Any,
    rate: Any,
) -> None:
    for i in range(value.shape[0]):
        g = gradient[i] + value[i] * decay if decays else gradient[i]
        v = velocity[i] * keep + g * share
        velocity[i] = v
        value[i] -= (g + v * momentum if ahead else v) * rate


@compiled(WRITE1, WRITE1, WRITE1, READ1, INT, *(FLOAT,) * 9, contract=False)
def _adam_step(
    value: Any,
    mean: Any,
    square: Any,
    gradient: Any,
    decays: Any,
    decay: Any,
    shrink: Any,
    keep1: Any,
    share1: Any,
    keep2: Any,
    share2: Any,
    factor: Any,
    eps: Any,
    rate: Any,
) -> None:
    for i in range(value.shape[0]):
        g = gradient[i] + value[i] * decay if decays else gradient[i]
        m = mean[i] * keep1 + g * share1
        s = square[i] * keep2 + g * g * share2
        mean[i], square[i] = m, s
        value[i] = value[i] * shrink - m / (sqrt(s) * factor + eps) * rate


def sgd_step(value: Array, gradient: Array, decay: float, rate: float) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _sgd_step(value, contiguous(gradient), decay != 0.0, *_numbers(decay, rate))


def momentum_step(
    value: Array,
    velocity: Array,
    gradient: Array,
    decay: float,
    keep: float,
    share: float,
    ahead: float,
    rate: float,
) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    before, after = _numbers(decay, keep, share), _numbers(ahead, rate)
    _momentum_step(value, velocity, contiguous(gradient), decay != 0.0, *before, ahead != 0.0, *after)


def adam_step(
    value: Array,
    mean: Array,
    square: Array,
    gradient: Array,
    decay: float,
    shrink: float,
    betas: tuple[float, float],
    factor: float,
    eps: float,
    rate: float,
) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    first, second = betas
    numbers = _numbers(decay, shrink, first, 1.0 - first, second, 1.0 - second, factor, eps, rate)
    _adam_step(value, mean, square, contiguous(gradient), decay != 0.0, *numbers)


def _numbers(*numbers: float) -> tuple[Any, ...]:
    """As float32, to which NumPy converts a number that is combined with a float32 array."""
    return tuple(map(np.float32, numbers))
