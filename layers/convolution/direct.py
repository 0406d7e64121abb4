"""Direct convolution by compiled code: sums of products are read from the input itself, without columns.

There are no array functions for it; `serves` says where an engine has it.
"""

from typing import Any

from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from . import prepared
from .problem import Problem

# Size of a weight up to which it stays in a core's cache; beyond, matrix products are faster.
MAX_WEIGHT_SIZE = 1 << 19


def serves(problem: Problem, ops: Operations) -> bool:
    """Whether an engine computes the problem."""
    return ops.free_order and prepared.find("direct", problem, ops) is not None


def suits(problem: Problem, ops: Operations) -> bool:
    """Whether an engine computes the problem, and the weight is small enough for it."""
    size = problem.windows.cells * problem.channels * problem.features
    return size <= MAX_WEIGHT_SIZE and serves(problem, ops)


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    problem: Problem,
    ops: Operations,
    keep: Keep = compute,
    relu: bool = False,
) -> Array:
    """``y (N, *O, F)``."""
    return prepared.forward(_engine(problem, ops), "direct", x, weight, bias, problem, keep, relu)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C, *K)``."""
    return _engine(problem, ops).weight_gradient(x, dy)


def _engine(problem: Problem, ops: Operations) -> Any:
    """The engine's object, which `serves` requires."""
    found = prepared.find("direct", problem, ops)
    assert found is not None
    return found
