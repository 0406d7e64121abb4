"""Chooses the algorithm of a convolution, by shape. The package's docstring lists when each is chosen, and why.

The limits are measured (``xpnn bench --layers``). The choice depends only on shapes, dtype, `Problem.algorithms` and
whether an engine has an operation, and therefore so do results; exact numerics always uses columns. What suits a CPU's
caches, or shares parts among workers, is not chosen for engines with `few_launches`, on which a launch is expensive.
What avoids short copies by array functions, the band matrices, is not chosen where an engine cuts the columns.

An algorithm requested by name (`xpnn.layers.convolution.algorithms`) is chosen wherever it can compute the problem.
"""

from functools import lru_cache

from array_api_compat import device

from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from . import algorithms, banded_rows, columns, depthwise, direct, large_weight, winograd
from .banded import Banded, neighbours
from .problem import Problem
from .trim_padding import part_of_input, part_of_weight, trim
from .winograd import Winograd

F2, F4, F5 = Winograd(2), Winograd(4), Winograd(5)
# Channels from which Winograd's tiles are faster than direct sums by compiled code.
WINOGRAD_BEFORE_DIRECT = 64
# Cost of Winograd's tiles, in parts of the products of columns, up to which they are faster: by array functions, and
# compiled, where columns lose more by their copies.
LIMIT, COMPILED_LIMIT = 0.8, 1.15


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    problem: Problem,
    ops: Operations,
    *,
    relu: bool = False,
    keep: Keep = compute,
) -> Array:
    """``y (N, *O, F)`` of ``x (N, *S, C)``, or its ReLU; ``keep`` is for values that depend on weight and bias only."""
    parts = trim(problem)
    if parts is None:
        return _forward(x, weight, bias, problem, ops, keep, relu)
    y = _zeros(problem.y_shape, x, ops)
    if bias is not None:
        y += bias
    if parts.problem is not None:
        operands = part_of_input(x, parts.inputs), part_of_weight(weight, parts.cells)
        y[(slice(None), *parts.outputs, slice(None))] = _forward(*operands, bias, parts.problem, ops)
    return ops.relu_in_place(y) if relu else y


def _forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    problem: Problem,
    ops: Operations,
    keep: Keep = compute,
    relu: bool = False,
) -> Array:
    """`forward` of a problem that is not trimmed."""
    return algorithm(problem, ops).forward(x, weight, bias, problem, ops, keep, relu)


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations, *, keep: Keep = compute) -> Array:
    """``dx (N, *S, C)`` of ``dy (N, *O, F)``; ``keep`` is for values that depend on the weight only."""
    parts = trim(problem)
    if parts is None:
        return _input_gradient(dy, weight, problem, ops, keep)
    dx = _zeros(problem.x_shape, dy, ops)
    if parts.problem is not None:
        operands = part_of_input(dy, parts.outputs), part_of_weight(weight, parts.cells)
        dx[(slice(None), *parts.inputs, slice(None))] = _input_gradient(*operands, parts.problem, ops)
    return dx


def _input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations, keep: Keep = compute) -> Array:
    """`input_gradient` of a problem that is not trimmed."""
    requested = algorithms.requested_input_gradient(problem, ops)
    if requested is not None:
        return requested(dy, weight, problem, ops)
    if depthwise.serves(problem, ops):
        return depthwise.input_gradient(dy, weight, problem, ops)
    by_adjoint = ops.by_adjoint(problem.windows, problem.channels, problem.features, problem.groups)
    adjoint = problem.adjoint if by_adjoint else None
    if ops.few_launches and (adjoint is None or _winograd(adjoint) is None):
        return columns.input_gradient(dy, weight, problem, ops, keep)
    if ops.free_order and banded_rows.suits(problem) and not columns.is_compiled(problem, ops):
        return banded_rows.input_gradient(dy, weight, problem, ops, keep)
    if adjoint is not None:
        return _forward(dy, weight, None, adjoint, ops, keep)
    return columns.input_gradient(dy, weight, problem, ops, keep)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C/G, *K)``."""
    parts = trim(problem)
    if parts is None:
        return _weight_gradient(x, dy, problem, ops)
    shape = (problem.features, problem.channels // problem.groups, *problem.windows.kernel)
    dweight = _zeros(shape, x, ops)
    if parts.problem is not None:
        operands = part_of_input(x, parts.inputs), part_of_input(dy, parts.outputs)
        dweight[(slice(None), slice(None), *parts.cells)] = _weight_gradient(*operands, parts.problem, ops)
    return dweight


def _weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """`weight_gradient` of a problem that is not trimmed."""
    return algorithm(problem, ops).weight_gradient(x, dy, problem, ops)


def _zeros(shape: tuple[int, ...], like: Array, ops: Operations) -> Array:
    return ops.xp.zeros(shape, dtype=like.dtype, device=device(like))


def algorithm(problem: Problem, ops: Operations) -> algorithms.Algorithm:
    """The algorithm for a problem's forward and its weight's gradient."""
    if not ops.free_order:
        return columns
    requested = algorithms.requested(problem, ops)
    if requested is not None:
        return requested
    if depthwise.serves(problem, ops):
        return depthwise
    tiles = _winograd(problem) if ops.views else None
    if ops.few_launches:
        return tiles or columns
    compiled = _winograd(problem, compiled=True) if ops.views else None
    if compiled is not None and compiled.is_compiled(problem, ops):
        return compiled
    if large_weight.suits(problem):
        return direct if direct.serves(problem, ops) else large_weight
    if tiles is not None and min(problem.channels, problem.features) >= WINOGRAD_BEFORE_DIRECT:
        return tiles
    if direct.suits(problem, ops):
        return direct
    if columns.is_compiled(problem, ops):
        return tiles or columns
    return tiles or _banded(problem) or columns


def _banded(problem: Problem) -> Banded | None:
    """A band matrix for a convolution with few channels; None where it does not pay off."""
    if problem.algorithms == "direct" or problem.channels > 16:
        return None
    t = neighbours(problem)
    return None if t == 1 else Banded(t)


@lru_cache(maxsize=1024)
def _winograd(problem: Problem, compiled: bool = False) -> Winograd | None:
    """The cheapest tile size for a 3x3 convolution with many channels; None for all others."""
    if not winograd.serves(problem) or min(problem.channels, problem.features) < 32:
        return None
    costs = {each: each.compiled_cost(problem) if compiled else each.cost(problem) for each in (F2, F4, F5)}
    best = min(costs, key=lambda each: costs[each])
    return best if costs[best] < (COMPILED_LIMIT if compiled else LIMIT) * problem.multiply_adds else None
