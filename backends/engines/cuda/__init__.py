"""CUDA kernels of our own, for CuPy: few launches, each over a whole batch.

`prepare` gives for an operation and its sizes what computes it, or None where the array path does. Everything here
is held to the array path by the parity catalogue; ``XPNN_CUDA_KERNELS=0`` leaves it out. Opening a CuPy backend refuses
a value of that variable that is neither 0 nor 1.
"""

import os
from typing import Any

from ....common import environment
from ... import overrides
from . import adaptive, columns, depthwise, losses, norms, pools, sums, updates, winograd
from .source import TYPES

VARIABLE = environment.CUDA_KERNELS
#: Whether kernels are used; read once, for every operation asks.
enabled = os.environ.get(VARIABLE, "").strip() != "0"


def prepare(operation: str, problem: Any, dtype: str, ops: Any) -> Any:
    """What computes an operation of that dtype: an object with the operation's methods; None if nothing here does."""
    if dtype not in TYPES or not used():
        return None
    found = _prepare(operation, problem, dtype, ops)
    if found is not None:
        overrides.met(["kernels"])
    return found


def used() -> bool:
    """Whether kernels are used: switched on, and not overruled by `xpnn.backends.overrides`."""
    return enabled and overrides.chosen().kernels is not False


def _prepare(operation: str, problem: Any, dtype: str, ops: Any) -> Any:
    match operation:
        case "columns":
            return columns.prepare(problem, ops)
        case "winograd":
            return winograd.prepare(problem, ops)
        case "depthwise":
            return depthwise.prepare(problem, sums.prepare(problem.dtype, ops))
        case "max pool":
            return pools.prepare_max(problem, dtype)
        case "average pool":
            return pools.prepare_avg(problem, dtype)
        case "adaptive pool":
            return adaptive.prepare(problem, dtype)
        case "batch norm":
            return norms.prepare(*problem, dtype)
        case "cross entropy":
            return losses.prepare(problem, dtype)
        case "update":
            return updates.prepare(problem, dtype)
        case "sum of rows":
            return sums.prepare(dtype, ops)
    return None
