"""Optimizer steps: all parameters of a group in one program, each in one pass over memory.

The jobs read a table of addresses, one row a parameter. Work is cut into pieces of all parameters by their sizes: a
large one has many, and small ones share an item.

Every operation is rounded separately, in the order of the array functions in `xpnn.training.optimizers`, so that
the bits are the same. The formulas are there. Settings and numbers are those of the CUDA engine
(`xpnn.backends.engines.cuda.optimizer_steps`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....common.types import Array
from .adam_rules import adam, adamax, advance_adam, advance_adamax, amsgrad, nadam, radam
from .jobs import Job, bind_phases
from .optimizer_rules import adadelta, adagrad, advance_adagrad, lion, momentum, rmsprop, sgd
from .optimizer_table import COLUMNS, COUNTERS, NUMBERS, STATES
from .packing import addresses_of
from .pieces import cut, has_no_gaps, steps
from .pool import perform

#: For each rule, the job that advances its counters, if it has any, and the one that updates entries.
RULES: dict[str, tuple[Job | None, Job]] = {
    "sgd": (None, sgd),
    "momentum": (None, momentum),
    "adam": (None, adam),
    "adam on the device": (advance_adam, adam),
    "amsgrad": (None, amsgrad),
    "amsgrad on the device": (advance_adam, amsgrad),
    "rmsprop": (None, rmsprop),
    "adagrad": (None, adagrad),
    "adagrad on the device": (advance_adagrad, adagrad),
    "adadelta": (None, adadelta),
    "adamax": (None, adamax),
    "adamax on the device": (advance_adamax, adamax),
    "nadam": (None, nadam),
    "radam": (None, radam),
    "lion": (None, lion),
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
