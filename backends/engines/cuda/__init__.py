"""CUDA kernels for CuPy: an operation on a whole batch in few launches.

`prepare` returns the kernels of an operation, or None if there are none for the problem; the layer then computes with
array functions. The parity catalogue compares both. ``XPNN_CUDA_KERNELS=0`` disables the kernels; `get_backend` raises
for CuPy if the variable is neither 0 nor 1.
"""

import os
from collections.abc import Callable
from typing import Any

from ....common import environment
from ...overrides import add_applicable, chosen
from . import (
    adaptive_pool,
    batch_norm,
    cross_entropy,
    depthwise,
    im2col,
    optimizer_steps,
    pools,
    row_sums,
    rows_by_index,
    winograd,
)
from .compilation import C_TYPES

#: Whether the environment enables kernels; read once, since every operation needs it.
enabled = os.environ.get(environment.CUDA_KERNELS, "").strip() != "0"

#: For each operation, the function that makes its kernels from a problem, a dtype, and the `Operations`
#: whose `matmul` they call.
OPERATIONS: dict[str, Callable[[Any, str, Any], Any]] = {
    "columns": im2col.prepare,
    "winograd": winograd.prepare,
    "depthwise": depthwise.prepare,
    "max pool": pools.prepare_max,
    "average pool": pools.prepare_avg,
    "adaptive pool": adaptive_pool.prepare,
    "batch norm": batch_norm.prepare,
    "cross entropy": cross_entropy.prepare,
    "update": optimizer_steps.prepare,
    "sum of rows": row_sums.prepare,
    "sum of rows by index": rows_by_index.prepare,
}


def prepare(operation: str, problem: Any, dtype: str, ops: Any) -> Any:
    """Kernels of an operation for a problem and dtype, as an object with the operation's methods; None if unsupported.

    See `xpnn.backends.operations.Operations.prepare`.
    """
    if dtype not in C_TYPES or operation not in OPERATIONS or not used():
        return None
    kernels = OPERATIONS[operation](problem, dtype, ops)
    if kernels is not None:
        add_applicable(["kernels"])
    return kernels


def used() -> bool:
    """Whether kernels are enabled, by the environment and by `xpnn.backends.overrides`."""
    return enabled and chosen().kernels is not False
