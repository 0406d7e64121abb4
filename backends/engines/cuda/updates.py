"""Steps of optimizers: all parameters in one launch.

A launch takes a table of addresses, sizes and numbers by value, as its argument, so that nothing is copied to the
device. Arguments may take 4 KiB: many parameters are a few launches. What a launch does to an entry is the rule of its
optimizer; the formulas are in `xpnn.training.optimizers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ....common.types import Array
from .source import Source

# Arrays that are remembered of a parameter, numbers of one, on the host and on the device, and settings of a rule.
MEMORY, NUMBERS, COUNTERS, SETTINGS = 3, 3, 2, 8
THREADS, MOST_BLOCKS = 256, 1024


@dataclass(frozen=True)
class Rule:
    """What a step does to an entry, in CUDA C++.

    Attributes
    ----------
    entry : str
        Changes ``value`` and ``memory[j][i]``, given the gradient ``g``, settings ``s[j]`` and numbers ``n[j]``.
    numbers : str
        Makes ``n`` of the parameter's own, ``row.number``, and of its counters on the device, ``row.counter``.
    advance : str
        Brings the counters up to date before a step; empty where there are none.
    """

    entry: str
    numbers: str = ""
    advance: str = ""


_ADAM = """
    g += value * s[3];
    value *= s[4];
    const T mean = memory[0][i] * s[0] + g * s[5], square = memory[1][i] * s[1] + g * g * s[6];
    memory[0][i] = mean;
    memory[1][i] = square;
    value -= mean / (sqrt(square) * n[0] + s[2]) * n[1];
"""
_ADAGRAD = """
    g += value * s[1];
    const T sum = (n[1] ? memory[0][i] + s[2] : memory[0][i]) + g * g;
    memory[0][i] = sum;
    value -= g / (sqrt(sum) + s[0]) * n[0];
"""
RULES = {
    "sgd": Rule("value -= (g + value * s[1]) * s[0];"),
    "momentum": Rule(
        """
    g += value * s[1];
    const T velocity = n[0] ? g : memory[0][i] * s[2] + g * s[3];
    memory[0][i] = velocity;
    value -= (s[4] ? g + velocity * s[2] : velocity) * s[0];
"""
    ),
    "adam": Rule(_ADAM),
    "adam on the device": Rule(
        _ADAM,
        """
        n[0] = (T)(1 / sqrt(1 - *(const double*)row.counter[1]));
        n[1] = (T)(s[7] / (1 - *(const double*)row.counter[0]));
""",
        "*(double*)row.counter[0] *= s[0]; *(double*)row.counter[1] *= s[1];",
    ),
    "rmsprop": Rule(
        """
    g += value * s[1];
    const T square = memory[0][i] * s[2] + g * g * s[6];
    memory[0][i] = square;
    T spread = square;
    if (s[5]) {
        const T mean = memory[1][i] * s[2] + g * s[6];
        memory[1][i] = mean;
        spread = square - mean * mean;
        // Of a steady gradient it is 0, and rounding may leave less; NaN stays
        if (spread < 0) spread = 0;
    }
    T step = g / (sqrt(spread) + s[3]);
    if (s[4]) {
        T* velocity = s[5] ? memory[2] : memory[1];
        step += velocity[i] * s[4];
        velocity[i] = step;
    }
    value -= step * s[0];
"""
    ),
    "adagrad": Rule(_ADAGRAD),
    "adagrad on the device": Rule(
        _ADAGRAD,
        "n[0] = (T)(s[3] / (1 + (*(const long long*)row.counter[0] - 1) * (double)s[4])); n[1] = (T)row.number[0];",
        "*(long long*)row.counter[0] += 1;",
    ),
}

SOURCE = """
struct Row {
    T *value, *memory[MEMORY];
    const T *gradient;
    void *counter[COUNTERS];
    Index size;
    double number[NUMBERS];
};
struct Table { Row row[TABLE]; };
struct Settings { double s[SETTINGS]; };

extern "C" __global__ void update(const __grid_constant__ Table table, const __grid_constant__ Settings settings)
{
    const Row &row = table.row[blockIdx.y];
    T s[SETTINGS], n[NUMBERS];
    for (int j = 0; j < SETTINGS; ++j) s[j] = (T)settings.s[j];
    for (int j = 0; j < NUMBERS; ++j) n[j] = (T)row.number[j];
    @numbers@
    T* memory[MEMORY];
    for (int j = 0; j < MEMORY; ++j) memory[j] = row.memory[j];
    const Index step = (Index)gridDim.x * blockDim.x;
    for (Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x; i < row.size; i += step) {
        T value = row.value[i], g = row.gradient[i];
        @entry@
        row.value[i] = value;
    }
}

"""
ADVANCE = """
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
        ("memory", np.uint64, (MEMORY,)),
        ("gradient", np.uint64),
        ("counter", np.uint64, (COUNTERS,)),
        ("size", np.int64),
        ("number", np.float64, (NUMBERS,)),
    ]
)
#: Parameters of a launch: of the 4 KiB that arguments may take the settings take 64 bytes.
TABLE = (4096 - 8 * SETTINGS) // ROW.itemsize


class Row(NamedTuple):
    """A parameter: its value and what is remembered of it, its gradient, numbers of its own, and device counters."""

    value: Array
    memory: Sequence[Array]
    gradient: Array
    numbers: Sequence[float]
    counters: Sequence[Array]


@lru_cache(maxsize=64)
def _source(rule: Rule) -> Source:
    defines = {"MEMORY": MEMORY, "NUMBERS": NUMBERS, "COUNTERS": COUNTERS, "SETTINGS": SETTINGS, "TABLE": TABLE}
    numbers = f"{{ const double* s = settings.s; {rule.numbers} }}" if rule.numbers else ""
    text = SOURCE.replace("@numbers@", numbers).replace("@entry@", rule.entry)
    text += ADVANCE.replace("@advance@", rule.advance) if rule.advance else ""
    return Source("\n".join(f"#define {name} {value}" for name, value in defines.items()) + text)


class Update:
    """Steps by one rule."""

    def __init__(self, rule: Rule, settings: Sequence[float], dtype: str) -> None:
        self.rule, self.dtype, self.source = rule, dtype, _source(rule)
        self.settings = np.zeros((), [("s", np.float64, (SETTINGS,))])
        self.settings["s"][: len(settings)] = settings

    def takes(self, value: Array, *others: Array) -> bool:
        """Whether arrays of one shape are of this dtype and have the same strides, without gaps in memory."""
        order = sorted(range(value.ndim), key=lambda axis: -value.strides[axis])
        steps = _steps(value)
        same = all(each.dtype == value.dtype and _steps(each) == steps for each in others)
        return bool(same and value.dtype.name == self.dtype and value.transpose(order).flags.c_contiguous)

    def __call__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take a step with all parameters."""
        for start in range(0, len(rows), TABLE):
            some = [Row(*row) for row in rows[start : start + TABLE]]
            table = np.zeros((), [("row", ROW, (TABLE,))])
            for at, row in enumerate(some):
                memory = [array.data.ptr for array in row.memory] + [0] * (MEMORY - len(row.memory))
                counters = [array.data.ptr for array in row.counters] + [0] * (COUNTERS - len(row.counters))
                numbers = [*row.numbers, *[0.0] * (NUMBERS - len(row.numbers))]
                pointers = (row.value.data.ptr, memory, row.gradient.data.ptr, counters)
                table["row"][at] = (*pointers, row.value.size, numbers)
            if self.rule.advance:
                self.source.launch("advance", self.dtype, (1,), (len(some),), table, self.settings)
            largest = max(row.value.size for row in some)
            blocks = min(MOST_BLOCKS, -(-largest // THREADS))
            if blocks:
                self.source.launch("update", self.dtype, (blocks, len(some)), (THREADS,), table, self.settings)


def _steps(x: Array) -> tuple[int, ...]:
    """Strides of the axes along which there are several entries."""
    return tuple(step for step, n in zip(x.strides, x.shape, strict=True) if n > 1)


@lru_cache(maxsize=256)
def prepare(problem: tuple[str, tuple[float, ...]], dtype: str) -> Update | None:
    """Kernels for a rule with these settings."""
    name, settings = problem
    return Update(RULES[name], settings, dtype) if name in RULES else None
