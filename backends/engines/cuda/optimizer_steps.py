"""Optimizer steps for many parameters in one launch.

The argument of a launch is a table of addresses, sizes and numbers, passed by value, so that nothing is copied to the
device. Arguments are limited to 4 KiB, so many parameters need a few launches. Each optimizer has a rule that updates
one entry; the formulas are in `xpnn.training.optimizers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ....common.types import Array
from .compilation import THREADS, Source

# Most state arrays, host numbers and device counters of a parameter, and settings of a rule.
STATES, SCALARS, COUNTERS, SETTINGS = 3, 4, 2, 8
# Most blocks of threads of a parameter.
MOST_BLOCKS = 1024


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer's update rule in CUDA C++.

    Attributes
    ----------
    entry : str
        Updates ``value`` and the state ``state[j][i]`` from the gradient ``g``, settings ``s[j]`` and numbers ``n[j]``.
    numbers : str
        Computes ``n`` from the parameter's host numbers ``row.number`` and device counters ``row.counter``; empty if
        ``n`` is the host numbers.
    advance : str
        Advances the counters before a step; empty if the rule has none.
    """

    entry: str
    numbers: str = ""
    advance: str = ""


_ADAM = """
    g += value * s[3];
    value *= s[4];
    const T mean = state[0][i] * s[0] + g * s[5], square = state[1][i] * s[1] + g * g * s[6];
    state[0][i] = mean;
    state[1][i] = square;
    value -= mean / (sqrt(square) * n[0] + s[2]) * n[1];
"""
_AMSGRAD = """
    g += value * s[3];
    value *= s[4];
    const T mean = state[0][i] * s[0] + g * s[5], square = state[1][i] * s[1] + g * g * s[6];
    // NaN stays, in either
    const T before = state[2][i], largest = before >= square || before != before ? before : square;
    state[0][i] = mean;
    state[1][i] = square;
    state[2][i] = largest;
    value -= mean / (sqrt(largest) * n[0] + s[2]) * n[1];
"""
_ADAM_NUMBERS = """
        n[0] = (T)(1 / sqrt(1 - *(const double*)row.counter[1]));
        n[1] = (T)(s[7] / (1 - *(const double*)row.counter[0]));
"""
_ADAM_ADVANCE = "*(double*)row.counter[0] *= s[0]; *(double*)row.counter[1] *= s[1];"
_ADAMAX = """
    g += value * s[3];
    const T mean = state[0][i] * s[0] + g * s[4], before = state[1][i] * s[1], now = fabs(g) + s[2];
    // NaN stays, in either
    const T largest = before >= now || before != before ? before : now;
    state[0][i] = mean;
    state[1][i] = largest;
    value -= mean / largest * n[0];
"""
_ADAGRAD = """
    g += value * s[1];
    const T sum = (n[1] ? state[0][i] + s[2] : state[0][i]) + g * g;
    state[0][i] = sum;
    value -= g / (sqrt(sum) + s[0]) * n[0];
"""
RULES = {
    "sgd": UpdateRule("value -= (g + value * s[1]) * s[0];"),
    "momentum": UpdateRule(
        """
    g += value * s[1];
    const T velocity = n[0] ? g : state[0][i] * s[2] + g * s[3];
    state[0][i] = velocity;
    value -= (s[4] ? g + velocity * s[2] : velocity) * s[0];
"""
    ),
    "adam": UpdateRule(_ADAM),
    "adam on the device": UpdateRule(
        _ADAM,
        _ADAM_NUMBERS,
        _ADAM_ADVANCE,
    ),
    "amsgrad": UpdateRule(_AMSGRAD),
    "amsgrad on the device": UpdateRule(_AMSGRAD, _ADAM_NUMBERS, _ADAM_ADVANCE),
    "rmsprop": UpdateRule(
        """
    g += value * s[1];
    const T square = state[0][i] * s[2] + g * g * s[6];
    state[0][i] = square;
    T spread = square;
    if (s[5]) {
        const T mean = state[1][i] * s[2] + g * s[6];
        state[1][i] = mean;
        spread = square - mean * mean;
        // For a constant gradient it is 0, and may be negative by rounding; NaN stays
        if (spread < 0) spread = 0;
    }
    T step = g / (sqrt(spread) + s[3]);
    if (s[4]) {
        T* velocity = s[5] ? state[2] : state[1];
        step += velocity[i] * s[4];
        velocity[i] = step;
    }
    value -= step * s[0];
"""
    ),
    "adagrad": UpdateRule(_ADAGRAD),
    "adagrad on the device": UpdateRule(
        _ADAGRAD,
        "n[0] = (T)(s[3] / (1 + (*(const long long*)row.counter[0] - 1) * (double)s[4])); n[1] = (T)row.number[0];",
        "*(long long*)row.counter[0] += 1;",
    ),
    "adadelta": UpdateRule(
        """
    g += value * s[1];
    const T square = state[0][i] * s[2] + g * g * s[4], delta = state[1][i];
    const T step = sqrt(delta + s[3]) / sqrt(square + s[3]) * g;
    state[0][i] = square;
    state[1][i] = delta * s[2] + step * step * s[4];
    value -= step * s[0];
"""
    ),
    "adamax": UpdateRule(_ADAMAX),
    "adamax on the device": UpdateRule(
        _ADAMAX,
        "n[0] = (T)(s[5] / (1 - *(const double*)row.counter[0]));",
        "*(double*)row.counter[0] *= s[0];",
    ),
    "nadam": UpdateRule(
        """
    g += value * s[3];
    value *= s[4];
    const T mean = state[0][i] * s[0] + g * s[5], square = state[1][i] * s[1] + g * g * s[6];
    state[0][i] = mean;
    state[1][i] = square;
    value -= (g * n[1] + mean * n[2]) / (sqrt(square) * n[0] + s[2]);
"""
    ),
    "radam": UpdateRule(
        """
    g += value * s[3];
    value *= s[4];
    const T mean = state[0][i] * s[0] + g * s[5], square = state[1][i] * s[1] + g * g * s[6];
    state[0][i] = mean;
    state[1][i] = square;
    value -= mean * n[0] * (n[2] * ((T)1 / (sqrt(square) + s[2])) + n[1]);
"""
    ),
    "lion": UpdateRule(
        """
    const T mean = state[0][i], direction = mean * s[2] + g * s[4];
    state[0][i] = mean * s[3] + g * s[5];
    // NaN stays
    const T way = direction > 0 ? (T)1 : direction < 0 ? (T)-1 : direction * 0;
    value = value * s[1] - way * s[0];
"""
    ),
}

UPDATE_SOURCE = """
// A parameter: addresses of its value, state, gradient and counters, its size, and its host numbers.
struct Row {
    T *value, *state[STATES];
    const T *gradient;
    void *counter[COUNTERS];
    Index size;
    double number[SCALARS];
};
struct Table { Row row[TABLE_ROWS]; };
// The settings of the rule, such as the learning rate.
struct Settings { double s[SETTINGS]; };

// A step of the parameters in the table; the blocks with equal blockIdx.y divide the entries of one parameter
extern "C" __global__ void update(const __grid_constant__ Table table, const __grid_constant__ Settings settings)
{
    const Row &row = table.row[blockIdx.y];
    T s[SETTINGS], n[SCALARS];
    for (int j = 0; j < SETTINGS; ++j) s[j] = (T)settings.s[j];
    for (int j = 0; j < SCALARS; ++j) n[j] = (T)row.number[j];
    @numbers@
    T* state[STATES];
    for (int j = 0; j < STATES; ++j) state[j] = row.state[j];
    const Index step = (Index)gridDim.x * blockDim.x;
    for (Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x; i < row.size; i += step) {
        T value = row.value[i], g = row.gradient[i];
        @entry@
        row.value[i] = value;
    }
}

"""
ADVANCE_SOURCE = """
// Advances the counters of the parameters in the table, with one thread for each parameter
extern "C" __global__ void advance(const __grid_constant__ Table table, const __grid_constant__ Settings settings)
{
    const Row &row = table.row[threadIdx.x];
    const double* s = settings.s;
    @advance@
}
"""
ROW = np.dtype(
    [
        ("value", np.uint64),
        ("state", np.uint64, (STATES,)),
        ("gradient", np.uint64),
        ("counter", np.uint64, (COUNTERS,)),
        ("size", np.int64),
        ("number", np.float64, (SCALARS,)),
    ]
)
#: Most parameters of a launch: its arguments have at most 4 KiB, 64 bytes of them for the settings.
TABLE_ROWS = (4096 - 8 * SETTINGS) // ROW.itemsize


class ParameterRow(NamedTuple):
    """A parameter's value, optimizer state, gradient, host numbers and device counters."""

    value: Array
    state: Sequence[Array]
    gradient: Array
    numbers: Sequence[float]
    counters: Sequence[Array]


@lru_cache(maxsize=64)
def _source(rule: UpdateRule) -> Source:
    sizes = {"STATES": STATES, "SCALARS": SCALARS, "COUNTERS": COUNTERS, "SETTINGS": SETTINGS}
    defines = {**sizes, "TABLE_ROWS": TABLE_ROWS}
    numbers = f"{{ const double* s = settings.s; {rule.numbers} }}" if rule.numbers else ""
    text = UPDATE_SOURCE.replace("@numbers@", numbers).replace("@entry@", rule.entry)
    text += ADVANCE_SOURCE.replace("@advance@", rule.advance) if rule.advance else ""
    return Source("\n".join(f"#define {name} {value}" for name, value in defines.items()) + text)


class OptimizerKernels:
    """Steps of one update rule."""

    def __init__(self, rule: UpdateRule, settings: Sequence[float], dtype: str) -> None:
        self.rule, self.dtype, self.source = rule, dtype, _source(rule)
        self.settings = np.zeros((), [("s", np.float64, (SETTINGS,))])
        self.settings["s"][: len(settings)] = settings

    def accepts(self, value: Array, *others: Array) -> bool:
        """Whether arrays of one shape have this dtype and the same strides, without gaps in memory."""
        order = sorted(range(value.ndim), key=lambda axis: -value.strides[axis])
        steps = _steps(value)
        same = all(each.dtype == value.dtype and _steps(each) == steps for each in others)
        return bool(same and value.dtype.name == self.dtype and value.transpose(order).flags.c_contiguous)

    def __call__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Update all parameters, given as fields of `ParameterRow`."""
        for start in range(0, len(rows), TABLE_ROWS):
            batch = [ParameterRow(*row) for row in rows[start : start + TABLE_ROWS]]
            table = np.zeros((), [("row", ROW, (TABLE_ROWS,))])
            for at, row in enumerate(batch):
                state = [array.data.ptr for array in row.state] + [0] * (STATES - len(row.state))
                counters = [array.data.ptr for array in row.counters] + [0] * (COUNTERS - len(row.counters))
                numbers = [*row.numbers, *[0.0] * (SCALARS - len(row.numbers))]
                pointers = (row.value.data.ptr, state, row.gradient.data.ptr, counters)
                table["row"][at] = (*pointers, row.value.size, numbers)
            if self.rule.advance:
                self.source.launch("advance", self.dtype, (1,), (len(batch),), table, self.settings)
            largest = max(row.value.size for row in batch)
            blocks = min(MOST_BLOCKS, -(-largest // THREADS))
            if blocks:
                self.source.launch("update", self.dtype, (blocks, len(batch)), (THREADS,), table, self.settings)


def _steps(x: Array) -> tuple[int, ...]:
    """Strides of the axes longer than 1."""
    return tuple(step for step, n in zip(x.strides, x.shape, strict=True) if n > 1)


@lru_cache(maxsize=256)
def prepare(problem: tuple[str, tuple[float, ...]], dtype: str, ops: Any) -> OptimizerKernels | None:
    """Kernels for the name of a rule and its settings."""
    name, settings = problem
    return OptimizerKernels(RULES[name], settings, dtype) if name in RULES else None
