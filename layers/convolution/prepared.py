"""Whole convolutions by an engine: compiled code on a CPU, CUDA kernels on a GPU."""

from typing import Any

from ...backends import overrides
from ...backends.operations import Operations
from .problem import Problem

# Multiply-adds below which array functions compute on a CPU: to load an engine would take longer than a tiny net.
MIN_MULTIPLY_ADDS = 1 << 13


def prepared(operation: str, problem: Problem, ops: Operations) -> Any:
    """The engine's object for an operation of a problem; None if there is none, and array functions must compute.

    It has the methods ``forward(x, weight, bias)``, ``weight_gradient(x, dy)`` and, but for ``"direct"`` and
    ``"winograd"``, ``input_gradient(dy, weight)``.
    """
    if not ops.few_launches and overrides.is_small(problem.multiply_adds, MIN_MULTIPLY_ADDS):
        return None
    return ops.prepare(operation, problem, problem.dtype)
