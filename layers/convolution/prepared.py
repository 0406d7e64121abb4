"""Whole convolutions by an engine: compiled code on a CPU, CUDA kernels on a GPU."""

from collections.abc import Hashable
from typing import Any

from ...backends import overrides
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from .problem import Problem

# Multiply-adds below which array functions compute on a CPU: to load an engine would take longer than a tiny net.
MIN_MULTIPLY_ADDS = 1 << 13


def find(operation: str, problem: Problem, ops: Operations) -> Any:
    """The engine's object for an operation of a problem; None if there is none, and array functions must compute.

    It has the methods ``pack(weight)``, ``forward(x, weight, bias, packed, relu)``, ``weight_gradient(x, dy)`` and, but
    for ``"direct"`` and ``"winograd"``, ``input_gradient(dy, weight)``.
    """
    if not ops.few_launches and overrides.is_small(problem.multiply_adds, MIN_MULTIPLY_ADDS):
        return None
    return ops.prepare(operation, problem, problem.dtype)


def forward(
    engine: Any,
    key: Hashable,
    x: Array,
    weight: Array,
    bias: Array | None,
    problem: Problem,
    keep: Keep,
    relu: bool,
) -> Array:
    """``y (N, *O, F)`` or its ReLU by an engine's object, with its own layout of the weight where that is kept."""
    packed = None if keep is compute else keep((key, problem.rotated, problem.groups), lambda: engine.pack(weight))
    y: Array = engine.forward(x, weight, bias, packed, relu)
    return y
