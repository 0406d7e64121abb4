"""Jobs of Adam and its relatives; see `optimizer_steps`."""

from math import sqrt
from typing import Any

from .compiler import helper
from .jobs import job
from .optimizer_table import COUNTER, KINDS, STATE, arrays_at
from .vectors import vector_at


@helper
def _settings(settings: Any, value: Any) -> Any:
    """Betas, eps, decay, factor of the value and 1 - betas, in the dtype of the value."""
    number = value.dtype.type
    return (
        number(settings[0]),
        number(settings[1]),
        number(settings[2]),
        number(settings[3]),
        number(settings[4]),
        number(settings[5]),
        number(settings[6]),
    )


@job(*KINDS, contract=False)
def adam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adam: settings of `advance_adam`; numbers: the factor of the root, and the rate."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, square = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        keep1, keep2, eps, decay, shrink, share1, share2 = _settings(settings, value)
        factor, rate = number(numbers[row, 0]), number(numbers[row, 1])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share1
            s = square[i] * keep2 + g * g * share2
            mean[i], square[i] = m, s
            value[i] = value[i] * shrink - m / (sqrt(s) * factor + eps) * rate


@job(*KINDS, contract=False)
def amsgrad(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adam with the largest square so far, the third array of state; settings and numbers of `adam`."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, square = arrays_at(table, row, first, size, zero)
        largest = vector_at(table[row, STATE + 2], first, size, zero)
        number = value.dtype.type
        keep1, keep2, eps, decay, shrink, share1, share2 = _settings(settings, value)
        factor, rate = number(numbers[row, 0]), number(numbers[row, 1])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share1
            s = square[i] * keep2 + g * g * share2
            mean[i], square[i] = m, s
            most = largest[i]
            # NaN stays, in either.
            most = most if most >= s or most != most else s
            largest[i] = most
            value[i] = value[i] * shrink - m / (sqrt(most) * factor + eps) * rate


@job(*KINDS, contract=False)
def advance_adam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Advance the powers of both betas; settings betas, eps, decay, factor of the value, 1 - betas, rate."""
    for row in range(table.shape[0]):
        power1 = vector_at(table[row, COUNTER], 0, 1, settings[0])
        power2 = vector_at(table[row, COUNTER + 1], 0, 1, settings[0])
        power1[0] *= settings[0]
        power2[0] *= settings[1]
        numbers[row, 0] = 1.0 / sqrt(1.0 - power2[0])
        numbers[row, 1] = settings[7] / (1.0 - power1[0])


@job(*KINDS, contract=False)
def adamax(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adamax: settings betas, eps, decay, 1 - beta1; number: the rate."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, largest = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        keep1, keep2, eps = number(settings[0]), number(settings[1]), number(settings[2])
        decay, share, rate = number(settings[3]), number(settings[4]), number(numbers[row, 0])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share
            before, now = largest[i] * keep2, abs(g) + eps
            # NaN stays, in either.
            most = before if before >= now or before != before else now
            mean[i], largest[i] = m, most
            value[i] -= m / most * rate


@job(*KINDS, contract=False)
def advance_adamax(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Advance the power of the first beta; settings of `adamax`, rate."""
    for row in range(table.shape[0]):
        power = vector_at(table[row, COUNTER], 0, 1, settings[0])
        power[0] *= settings[0]
        numbers[row, 0] = settings[5] / (1.0 - power[0])


@job(*KINDS, contract=False)
def nadam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """NAdam: settings of `adam`; numbers: the factor of the root, and the rates of gradient and mean."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, square = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        keep1, keep2, eps, decay, shrink, share1, share2 = _settings(settings, value)
        factor, of_gradient, of_mean = (
            number(numbers[row, 0]),
            number(numbers[row, 1]),
            number(numbers[row, 2]),
        )
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share1
            s = square[i] * keep2 + g * g * share2
            mean[i], square[i] = m, s
            value[i] = value[i] * shrink - (g * of_gradient + m * of_mean) / (sqrt(s) * factor + eps)


@job(*KINDS, contract=False)
def radam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """RAdam: settings of `adam`; numbers: the rate, and the factors of 1 and of the inverse root."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient, mean, square = arrays_at(table, row, first, size, zero)
        number = value.dtype.type
        keep1, keep2, eps, decay, shrink, share1, share2 = _settings(settings, value)
        rate, plain, scale = number(numbers[row, 0]), number(numbers[row, 1]), number(numbers[row, 2])
        one = number(1.0)
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share1
            s = square[i] * keep2 + g * g * share2
            mean[i], square[i] = m, s
            value[i] = value[i] * shrink - m * rate * (scale * (one / (sqrt(s) + eps)) + plain)
