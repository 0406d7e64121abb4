"""Optimizer steps: all parameters of a group in one program, each in one pass over memory.

The jobs read a table of addresses, one row a parameter. Work is cut into pieces of all parameters by their sizes: a
large one has many, and small ones share an item.

Every operation is rounded separately, in the order of the array functions in `xpnn.training.optimizers`, so that
the bits are the same. The formulas are there. Settings and numbers are those of the CUDA engine
(`xpnn.backends.engines.cuda.optimizer_steps`).
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from ....common.types import Array
from .jobs import NUMBER, Job, bind_phases, job, read, write
from .packing import addresses_of
from .pieces import cut, has_no_gaps, steps
from .pool import perform
from .vectors import vector_at

# Columns of the table: addresses of the value, of up to three arrays of state, of the gradient and of two counters.
VALUE, STATE, GRADIENT, COUNTER = 0, 1, 4, 5
STATES, COUNTERS, NUMBERS, COLUMNS = 3, 2, 3, 7

#: The arguments of all jobs: pieces ``(parameter, first entry, size)``, the first piece of each item, the table, the
#: rule's settings, numbers of each parameter, and any number of the dtype.
KINDS = (read(2, "int64"), read(1, "int64"), read(2, "int64"), read(1, "float64"), write(2, "float64"), NUMBER)


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
        value, gradient = (
            vector_at(table[row, VALUE], first, size, zero),
            vector_at(table[row, GRADIENT], first, size, zero),
        )
        velocity = vector_at(table[row, STATE], first, size, zero)
        number = value.dtype.type
        rate, decay, keep, share = number(settings[0]), number(settings[1]), number(settings[2]), number(settings[3])
        is_first, ahead = numbers[row, 0] != 0.0, settings[4] != 0.0
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            v = velocity[i] + g if is_first else velocity[i] * keep + g * share
            velocity[i] = v
            value[i] -= (g + v * keep if ahead else v) * rate


@job(*KINDS, contract=False)
def adam(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """Adam: settings of `advance_adam`; numbers: the factor of the root, and the rate."""
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient = (
            vector_at(table[row, VALUE], first, size, zero),
            vector_at(table[row, GRADIENT], first, size, zero),
        )
        mean, square = (
            vector_at(table[row, STATE], first, size, zero),
            vector_at(table[row, STATE + 1], first, size, zero),
        )
        number = value.dtype.type
        keep1, keep2, eps = number(settings[0]), number(settings[1]), number(settings[2])
        decay, shrink = number(settings[3]), number(settings[4])
        share1, share2 = number(settings[5]), number(settings[6])
        factor, rate = number(numbers[row, 0]), number(numbers[row, 1])
        for i in range(size):
            g = gradient[i] + value[i] * decay if decay != zero else gradient[i]
            m = mean[i] * keep1 + g * share1
            s = square[i] * keep2 + g * g * share2
            mean[i], square[i] = m, s
            value[i] = value[i] * shrink - m / (sqrt(s) * factor + eps) * rate


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
def rmsprop(item: Any, pieces: Any, firsts: Any, table: Any, settings: Any, numbers: Any, zero: Any) -> None:
    """RMSprop: settings rate, decay, alpha, eps, momentum, whether centered, 1 - alpha."""
    centered = settings[5] != 0.0
    for piece in range(firsts[item], firsts[item + 1]):
        row, first, size = pieces[piece]
        value, gradient = (
            vector_at(table[row, VALUE], first, size, zero),
            vector_at(table[row, GRADIENT], first, size, zero),
        )
        square, mean = (
            vector_at(table[row, STATE], first, size, zero),
            vector_at(table[row, STATE + 1], first, size, zero),
        )
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
        value, gradient = (
            vector_at(table[row, VALUE], first, size, zero),
            vector_at(table[row, GRADIENT], first, size, zero),
        )
        total = vector_at(table[row, STATE], first, size, zero)
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


class OptimizerSteps:
    """Steps of one update rule."""

    def __init__(self, advance: Job | None, update: Job, settings: Sequence[float], dtype: str) -> None:
        self.advance, self.update, self.name, self.dtype = advance, update, dtype, np.dtype(dtype)
        self.settings = np.array(settings, np.float64)

    def accepts(self, value: Array, *others: Array) -> bool:
        """Whether arrays of one shape have this dtype and the same strides, without gaps in memory."""
        order, dtype = value.strides, self.dtype
        if not _ARRAYS.issuperset(map(type, (value, *others))):
            # Parameters may be scalars of NumPy.
            return False
        if value.dtype != dtype or not (value.flags.c_contiguous or has_no_gaps(value)):
            return False
        for each in others:
            if each.dtype != dtype or not (each.strides == order or steps(each) == steps(value)):
                return False
        return True

    def __call__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Update all parameters, given as value, arrays of state, gradient, numbers, and 0-d arrays of counters."""
        if not rows:
            return
        arrays: list[Array] = []
        numbers: list[float] = []
        sizes: list[int] = []
        for value, state, gradient, of_row, counters in rows:
            # What a rule does not have is never read.
            arrays += (value, *state, *(value,) * (STATES - len(state)), gradient)
            arrays += (*counters, *(value,) * (COUNTERS - len(counters)))
            numbers += (*of_row, *_ZEROS[len(of_row) :])
            sizes.append(value.size)
        pieces, firsts = cut(tuple(sizes))
        items = len(firsts) - 1
        table, numbers_of_rows = addresses_of(arrays).reshape(-1, COLUMNS), np.array(numbers).reshape(-1, NUMBERS)
        phases = [(self.update, items)] if self.advance is None else [(self.advance, 1), (self.update, items)]
        arguments = (pieces, firsts, table, self.settings, numbers_of_rows, 0.0)
        perform(bind_phases(phases, *arguments, dtype=self.name, addressed=arrays))


_ARRAYS = frozenset((np.ndarray, np.memmap))
_ZEROS = (0.0,) * NUMBERS


def prepare(problem: tuple[str, tuple[float, ...]], dtype: str) -> OptimizerSteps | None:
    """Steps of the rule of that name with these settings."""
    name, settings = problem
    return OptimizerSteps(*RULES[name], settings, dtype) if name in RULES else None
