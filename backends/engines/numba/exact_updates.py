"""Optimizer steps of exact numerics: all parameters of a group in one program, each in one pass over memory.

Values, state and gradients are stored in float32 and computed with in float64, rounded once for each step, as the
array functions in `xpnn.training.optimizers` do. Tables, pieces and settings are those of `optimizer_steps`.
"""

from typing import Any

import numpy as np

from .exact_numbers import down, root, up
from .jobs import Job, job
from .optimizer_steps import OptimizerSteps
from .optimizer_table import COUNTER, GRADIENT, KINDS, STATE, VALUE, arrays_at
from .vectors import vector_at


@job(*KINDS, contract=False)
def sgd(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """SGD without momentum: settings rate, decay."""
    rate, decay = settings[0], settings[1]
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient = (
            vector_at(table[row, VALUE], first, size, zero),
            vector_at(table[row, GRADIENT], first, size, zero),
        )
        for i in range(size):
            v, g = up(value[i]), up(gradient[i])
            value[i] = down(v - (g + v * decay if decay != 0.0 else g) * rate)


@job(*KINDS, contract=False)
def momentum(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """SGD with momentum: settings rate, decay, momentum, 1 - dampening, Nesterov; number: whether it is the first."""
    rate, decay, keep, share, ahead = settings[0], settings[1], settings[2], settings[3], settings[4] != 0.0
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, velocity, _ = arrays_at(table, row, first, size, zero)
        is_first = numbers[row, 0] != 0.0
        for i in range(size):
            x, g, v = up(value[i]), up(gradient[i]), up(velocity[i])
            g = g + x * decay if decay != 0.0 else g
            v = v + g if is_first else v * keep + g * share
            velocity[i] = down(v)
            value[i] = down(x - (g + v * keep if ahead else v) * rate)


@job(*KINDS, contract=False)
def adam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adam: settings of `advance_adam`; numbers: the factor of the root, and the rate."""
    keep1, keep2, eps, decay, shrink = settings[0], settings[1], settings[2], settings[3], settings[4]
    share1, share2 = settings[5], settings[6]
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, square = arrays_at(table, row, first, size, zero)
        factor, rate = numbers[row, 0], numbers[row, 1]
        for i in range(size):
            x, g = up(value[i]), up(gradient[i])
            g = g + x * decay if decay != 0.0 else g
            m = up(mean[i]) * keep1 + g * share1
            s = up(square[i]) * keep2 + g * g * share2
            mean[i], square[i] = down(m), down(s)
            value[i] = down(x * shrink - m / (root(s) * factor + eps) * rate)


@job(*KINDS, contract=False)
def advance_adam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Advance the powers of both betas; settings betas, eps, decay, factor of the value, 1 - betas, rate."""
    for row in range(table.shape[0]):
        power1 = vector_at(table[row, COUNTER], 0, 1, settings[0])
        power2 = vector_at(table[row, COUNTER + 1], 0, 1, settings[0])
        power1[0] *= settings[0]
        power2[0] *= settings[1]
        numbers[row, 0] = 1.0 / root(1.0 - power2[0])
        numbers[row, 1] = settings[7] / (1.0 - power1[0])


@job(*KINDS, contract=False)
def rmsprop(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """RMSprop: settings rate, decay, alpha, eps, momentum, whether centered, 1 - alpha."""
    rate, decay, keep, eps = settings[0], settings[1], settings[2], settings[3]
    ahead, centered, share = settings[4], settings[5] != 0.0, settings[6]
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, square, mean = arrays_at(table, row, first, size, zero)
        velocity = vector_at(table[row, STATE + (2 if centered else 1)], first, size, zero)
        # Apart, so that it becomes vectors.
        if not centered and ahead == 0.0:
            for i in range(size):
                x, g = up(value[i]), up(gradient[i])
                g = g + x * decay if decay != 0.0 else g
                s = up(square[i]) * keep + g * g * share
                square[i] = down(s)
                value[i] = down(x - g / (root(s) + eps) * rate)
            continue
        for i in range(size):
            x, g = up(value[i]), up(gradient[i])
            g = g + x * decay if decay != 0.0 else g
            s = up(square[i]) * keep + g * g * share
            square[i] = down(s)
            if centered:
                m = up(mean[i]) * keep + g * share
                mean[i] = down(m)
                s -= m * m
                # For a constant gradient it is 0, and may be negative by rounding; NaN stays.
                s = 0.0 if s < 0.0 else s
            change = g / (root(s) + eps)
            if ahead != 0.0:
                change = up(velocity[i]) * ahead + change
                velocity[i] = down(change)
            value[i] = down(x - change * rate)


@job(*KINDS, contract=False)
def adagrad(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adagrad: settings eps, decay, start of the sum; numbers: the rate, and whether it is the first step."""
    eps, decay, begin = settings[0], settings[1], settings[2]
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, total, _ = arrays_at(table, row, first, size, zero)
        rate, is_first = numbers[row, 0], numbers[row, 1] != 0.0
        for i in range(size):
            x, g, s = up(value[i]), up(gradient[i]), up(total[i])
            g = g + x * decay if decay != 0.0 else g
            s = (s + begin if is_first else s) + g * g
            total[i] = down(s)
            value[i] = down(x - g / (root(s) + eps) * rate)


@job(*KINDS, contract=False)
def advance_adagrad(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Count the steps; settings eps, decay, start of the sum, rate, decay of the rate."""
    for row in range(table.shape[0]):
        steps = vector_at(table[row, COUNTER], 0, 1, row)
        numbers[row, 1] = numbers[row, 0]
        numbers[row, 0] = settings[3] / (1.0 + np.float64(steps[0]) * settings[4])
        steps[0] += 1


#: For each rule, the job that advances its counters, if it has any, and the one that updates entries.
RULES: dict[str, tuple[Job | None, Job]] = {
    "sgd": (None, sgd),
    "momentum": (None, momentum),
    "adam": (None, adam),
    "adam on the device": (advance_adam, adam),
    "rmsprop": (None, rmsprop),
    "adagrad": (None, adagrad),
    "adagrad on the device": (advance_adagrad, adagrad),
}


def prepare(problem: tuple[str, tuple[float, ...]], dtype: str) -> OptimizerSteps | None:
    """Steps of the rule of that name with these settings."""
    name, settings = problem
    return OptimizerSteps(*RULES[name], settings, dtype) if name in RULES and dtype == "float32" else None
