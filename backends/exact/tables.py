"""Tables of the exact elementary functions, with the same bits on every machine.

Logarithms are computed in integers and roots of 2 in `decimal`, without the C library, whose `exp` and `log` differ
from machine to machine. All tables take 6 ms, once per process.
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from math import inf, ldexp, nan
from typing import Any

import numpy as np

from ...common.types import Array, Device, Namespace
from ..recording.guards import require_repeatable

LOWEST, HIGHEST = -1000, 1023  # exponents of arguments
TINY = 2.0**LOWEST  # smaller arguments count as 0
LOWEST_SCALE, HIGHEST_SCALE = -400, 2.0**600  # of a contraction: exponent of the smallest scale, and the largest scale
_STEPS = 32  # exp: table entries per octave
LAST = 33300  # exp: table entries on each side of 2**0; beyond +-720, where all results are 0 or inf
_CELLS = 256  # log: table entries per octave
_FIXED = 160  # bits after the point in the integers that the tables are computed with


class Tables:
    """The tables as arrays on one device. They can be read in any stream when the constructor returns."""

    def __init__(self, xp: Namespace, where: Device) -> None:
        require_repeatable("tables of elementary functions, a copy from the host")
        for name, values in _host_tables().items():
            setattr(self, name, xp.asarray(values.copy(), dtype=xp.float64, device=where))
        # On a GPU the copies are queued on the current stream, and other streams that read the tables later are not
        # synchronised with it. So the host waits once, by reading the last copy.
        float(self.log_low[0])

    binades: Array  # 2**-1000 ... 2**1023, inf
    above: Array  # by index among binades: the power of two strictly above
    clamped: Array  # the same, at least 2**-400
    to_cell: Array  # factor from a binade to [_CELLS, 2 * _CELLS)
    power: Array  # 2**(k / 32)
    power_m1: Array  # 2**(k / 32) - 1
    inverse: Array  # 1 / j
    log_high: Array  # log(j / _CELLS), in two parts
    log_low: Array


@lru_cache
def _logarithms() -> list[int]:
    """``log(j / _CELLS)`` for ``j`` from _CELLS to 2 * _CELLS, times 2**_FIXED.

    The difference of two neighbours is ``log((j + 1) / j) = 2 artanh(1 / (2j + 1))``.
    """
    logs = [0]
    for j in range(_CELLS, 2 * _CELLS):
        odd, term, step = 1, (2 << _FIXED) // (2 * j + 1), 0
        while term:
            step += term // odd
            term //= (2 * j + 1) ** 2
            odd += 2
        logs.append(logs[-1] + step)
    return logs


def _split(value: int, bits: int) -> tuple[float, float]:
    """``value / 2**_FIXED`` as a multiple of 2**-bits and the rest, each rounded once."""
    high = (value + (1 << (_FIXED - bits - 1))) >> (_FIXED - bits)
    return high / (1 << bits), (value - (high << (_FIXED - bits))) / (1 << _FIXED)


@lru_cache
def _host_tables() -> dict[str, np.ndarray[Any, Any]]:
    exponents = range(LOWEST, HIGHEST + 1)
    # Index 0 is below the first binade; only `exponent_scale` reads it.
    tables: dict[str, Any] = {
        "binades": [*(ldexp(1.0, e) for e in exponents), inf],
        "above": [1.0, *(ldexp(1.0, e + 1) for e in exponents if e < HIGHEST), inf, nan],
        "clamped": [1.0, *(ldexp(1.0, max(e + 1, LOWEST_SCALE)) for e in exponents if e < HIGHEST), inf, nan],
        "to_cell": [1.0, *(ldexp(_CELLS, -e) for e in exponents)],
        "inverse": [0.0] * _CELLS + [1 / j for j in range(_CELLS, 2 * _CELLS + 1)],
    }
    parts = [_split(value, 16) for value in _logarithms()]
    tables["log_high"] = [0.0] * _CELLS + [high for high, _ in parts]
    tables["log_low"] = [0.0] * _CELLS + [low for _, low in parts]
    with localcontext() as context:
        context.prec = 50
        step = Decimal(2)
        for _ in range(5):
            step = step.sqrt()
        roots = [step**j for j in range(_STEPS)]
        rest = [float(root - Decimal(float(root))) for root in roots]
    k = np.arange(-LAST, LAST + 1)
    octave, within = k // _STEPS, k % _STEPS
    usable = (octave >= -996) & (octave <= HIGHEST)
    factor = np.ldexp(1.0, np.where(usable, octave, 0))
    power = factor * np.asarray([float(root) for root in roots])[within]
    # power - 1 is exact where it cancels, so that the sum with the rounding error of power is rounded once.
    tables["power_m1"] = np.where(usable, (power - 1.0) + factor * np.asarray(rest)[within], -1.0)
    tables["power"] = np.where(usable, power, np.where(octave > 0, inf, 0.0))
    return {name: np.asarray(values, dtype=np.float64) for name, values in tables.items()}


# log(2) in 16 bits and the rest, log(2) / 32 in 37 bits and the rest: products of the first part and a whole number up
# to 2**16 are exact.
LOG2_HIGH, LOG2_LOW = _split(_logarithms()[-1], 16)
STEP_HIGH, STEP_LOW = _split(_logarithms()[-1] // _STEPS, 42)
STEPS_PER_LOG2 = _STEPS * (1 << _FIXED) / _logarithms()[-1]
