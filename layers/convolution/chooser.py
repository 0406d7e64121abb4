"""Which algorithm computes a convolution: one table, by shape.

The limits come from measurements beside each other (``xpnn bench --layers``). What is chosen depends on shapes, dtype,
precision and whether there are compiled kernels, so that results do on nothing else; exact numerics takes columns for
all. What suits a CPU's caches, and parts that workers share, is for engines to which a launch is cheap.

An algorithm that is asked for by name (`xpnn.layers.convolution.named`) is chosen wherever it serves.
"""

from functools import lru_cache

from array_api_compat import device

from ...backends.operations import Operations
from ...common.types import Array
from . import columns, depthwise, direct, named, rows, stationary, winograd
from .banded import Banded, neighbours
from .problem import Problem
from .reach import of_kernel, of_spatial, reach
from .winograd import Winograd

F2, F4, F5 = Winograd(2), Winograd(4), Winograd(5)
# Channels from which tiles take less time than compiled kernels.
TILES_FROM = 64


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """``y (N, *O, F)`` of ``x (N, *S, C)``."""
    parts = reach(problem)
    if parts is None:
        return _forward(x, weight, bias, problem, ops)
    y = _zeros(problem.y_shape, x, ops)
    if bias is not None:
        y += bias
    if parts.problem is not None:
        met = of_spatial(x, parts.inputs), of_kernel(weight, parts.cells)
        y[(slice(None), *parts.outputs, slice(None))] = _forward(*met, bias, parts.problem, ops)
    return y


def _forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """`forward` of all parts."""
    return algorithm(problem, ops).forward(x, weight, bias, problem, ops)


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """``dx (N, *S, C)`` of ``dy (N, *O, F)``."""
    parts = reach(problem)
    if parts is None:
        return _input_gradient(dy, weight, problem, ops)
    dx = _zeros(problem.x_shape, dy, ops)
    if parts.problem is not None:
        met = of_spatial(dy, parts.outputs), of_kernel(weight, parts.cells)
        dx[(slice(None), *parts.inputs, slice(None))] = _input_gradient(*met, parts.problem, ops)
    return dx


def _input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """`input_gradient` of all parts."""
    asked = named.input_gradient(problem, ops)
    if asked is not None:
        return asked(dy, weight, problem, ops)
    if depthwise.serves(problem, ops):
        return depthwise.input_gradient(dy, weight, problem, ops)
    adjoint = problem.adjoint if ops.free_order else None
    if ops.few_launches and (adjoint is None or _winograd(adjoint) is None):
        return columns.input_gradient(dy, weight, problem, ops)
    if ops.free_order and rows.suits(problem) and not (adjoint is not None and direct.serves(adjoint, ops)):
        return rows.input_gradient(dy, weight, problem, ops)
    if adjoint is not None:
        return _forward(dy, weight, None, adjoint, ops)
    return columns.input_gradient(dy, weight, problem, ops)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C/G, *K)``."""
    parts = reach(problem)
    if parts is None:
        return _weight_gradient(x, dy, problem, ops)
    shape = (problem.features, problem.channels // problem.groups, *problem.windows.kernel)
    dweight = _zeros(shape, x, ops)
    if parts.problem is not None:
        met = of_spatial(x, parts.inputs), of_spatial(dy, parts.outputs)
        dweight[(slice(None), slice(None), *parts.cells)] = _weight_gradient(*met, parts.problem, ops)
    return dweight


def _weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """`weight_gradient` of all parts."""
    return algorithm(problem, ops).weight_gradient(x, dy, problem, ops)


def _zeros(shape: tuple[int, ...], like: Array, ops: Operations) -> Array:
    return ops.xp.zeros(shape, dtype=like.dtype, device=device(like))


def algorithm(problem: Problem, ops: Operations) -> named.Algorithm:
    """The one that suits a problem."""
    if not ops.free_order:
        return columns
    asked = named.algorithm(problem, ops)
    if asked is not None:
        return asked
    if depthwise.serves(problem, ops):
        return depthwise
    tiles = _winograd(problem) if ops.views else None
    if ops.few_launches:
        return tiles or columns
    if stationary.suits(problem):
        return stationary
    if tiles is not None and min(problem.channels, problem.features) >= TILES_FROM:
        return tiles
    if direct.serves(problem, ops):
        return direct
    return tiles or _banded(problem) or columns


def _banded(problem: Problem) -> Banded | None:
    """As many neighbouring outputs together as suits a convolution with few channels."""
    if problem.precision == "direct" or problem.channels > 16:
        return None
    t = neighbours(problem)
    return None if t == 1 else Banded(t)


@lru_cache(maxsize=1024)
def _winograd(problem: Problem) -> Winograd | None:
    """The tile size that suits a 3x3 convolution with many channels; None for all others."""
    if not winograd.serves(problem) or min(problem.channels, problem.features) < 32:
        return None
    best = min((F2, F4, F5), key=lambda each: each.cost(problem))
    return best if best.cost(problem) < 0.8 * problem.multiply_adds else None
