"""Jobs of optimizer steps, except Adam's; see `optimizer_steps`."""

from math import sqrt
from typing import Any

from .jobs import job
from .optimizer_table import COUNTER, GRADIENT, KINDS, STATE, VALUE, arrays_at
from .vectors import vector_at


@job(*KINDS, contract=False)
def sgd(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """SGD without momentum: settings rate, decay."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, g = vector_at(table[row, VALUE], first, size, zero), vector_at(table[row, GRADIENT], first, size, zero)
        number = value.dtype.type
        rate, decay = number(settings[0]), number(settings[1])
        for i in range(size):
            value[i] -= (g[i] + value[i] * decay if decay != zero else g[i]) * rate


@job(*KINDS, contract=False)
def momentum(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """SGD with momentum: settings rate, decay, momentum, 1 - dampening, Nesterov; number: whether it is the first."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, velocity, _ = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        rate, decay, keep, share = number(settings[0]), number(settings[1]), number(settings[2]), number(settings[3])
        is_first, ahead = numbers[row, 0] != 0.0, settings[4] != 0.0
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            v = velocity[i] + g if is_first else velocity[i] * keep + g * share
            velocity[i] = v
            value[i] -= (g + v * keep if ahead else v) * rate


@job(*KINDS, contract=False)
def rmsprop(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """RMSprop: settings rate, decay, alpha, eps, momentum, whether centered, 1 - alpha."""
    centered = settings[5] != 0.0
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, square, mean = arrays_at(table, row, first, size, zero)
        velocity = vector_at(table[row, STATE + (2 if centered else 1)], first, size, zero)
        number = value.dtype.type
        rate, decay, keep, eps = number(settings[0]), number(settings[1]), number(settings[2]), number(settings[3])
        ahead, share = number(settings[4]), number(settings[6])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            s = square[i] * keep + g * g * share
            square[i] = s
            if centered:
                m = mean[i] * keep + g * share
                mean[i] = m
                s -= m * m
                # For a constant gradient it is 0, and may be negative by rounding; NaN stays.
                s = zero if s < zero else s
            change = g / (sqrt(s) + eps)
            if ahead != zero:
                change = velocity[i] * ahead + change
                velocity[i] = change
            value[i] -= change * rate


@job(*KINDS, contract=False)
def adagrad(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adagrad: settings eps, decay, start of the sum; numbers: the rate, and whether it is the first step."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, total, _ = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        eps, decay, begin = number(settings[0]), number(settings[1]), number(settings[2])
        rate, is_first = number(numbers[row, 0]), numbers[row, 1] != 0.0
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            s = (total[i] + begin if is_first else total[i]) + g * g
            total[i] = s
            value[i] -= g / (sqrt(s) + eps) * rate


@job(*KINDS, contract=False)
def advance_adagrad(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Count the steps; settings eps, decay, start of the sum, rate, decay of the rate."""
    for row in range(table.shape[0]):
        steps = vector_at(table[row, COUNTER], 0, 1, row)
        numbers[row, 1] = numbers[row, 0]
        numbers[row, 0] = settings[3] / (1.0 + steps[0] * settings[4])
        steps[0] += 1


@job(*KINDS, contract=False)
def adadelta(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adadelta: settings rate, decay, rho, eps, 1 - rho."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, square, delta = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        rate, decay, keep = number(settings[0]), number(settings[1]), number(settings[2])
        eps, share = number(settings[3]), number(settings[4])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            s = square[i] * keep + g * g * share
            d = delta[i]
            change = number(sqrt(d + eps)) / number(sqrt(s + eps)) * g
            square[i], delta[i] = s, d * keep + change * change * share
            value[i] -= change * rate


@job(*KINDS, contract=False)
def lion(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Lion: settings rate, factor of the value, betas, 1 - betas."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, _ = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        rate, shrink = number(settings[0]), number(settings[1])
        keep1, keep2, share1, share2 = (
            number(settings[2]),
            number(settings[3]),
            number(settings[4]),
            number(settings[5]),
        )
        one = number(1.0)
        for i in range(size):
            g, m = gradient[i], mean[i]
            direction = m * keep1 + g * share1
            mean[i] = m * keep2 + g * share2
            # NaN stays.
            way = one if direction > zero else (-one if direction < zero else direction * zero)
            value[i] = value[i] * shrink - way * rate
