"""Which algorithm computes a convolution: one table, by shape.

The limits come from measurements beside each other (``xpnn bench --layers``). What is chosen depends on shapes, dtype,
`Problem.algorithms` and whether there are compiled kernels, so that results do on nothing else; exact numerics takes
columns for all. What suits a CPU's caches, and parts that workers share, is for engines to which a launch is cheap.

An algorithm that is asked for by name (`xpnn.layers.convolution.named`) is chosen wherever it serves.
"""

from functools import lru_cache

from array_api_compat import device

from ...backends.primitives import Primitives
from ...common.types import Array
from . import columns, depthwise, direct, named, rows, stationary, winograd
from .banded import Banded, neighbours
from .problem import Problem
from .reach import of_kernel, of_spatial, reach
from .winograd import Winograd

F2, F4, F5 = Winograd(2), Winograd(4), Winograd(5)
# Channels from which tiles take less time than compiled kernels.
TILES_FROM = 64


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, engine: Primitives) -> Array:
    """``y (N, *O, F)`` of ``x (N, *S, C)``."""
    parts = reach(problem)
    if parts is None:
        return _forward(x, weight, bias, problem, engine)
    y = _zeros(problem.y_shape, x, engine)
    if bias is not None:
        y += bias
    if parts.problem is not None:
        met = of_spatial(x, parts.inputs), of_kernel(weight, parts.cells)
        y[(slice(None), *parts.outputs, slice(None))] = _forward(*met, bias, parts.problem, engine)
    return y


def _forward(x: Array, weight: Array, bias: Array | None, problem: Problem, engine: Primitives) -> Array:
    """`forward` of all parts."""
    return algorithm(problem, engine).forward(x, weight, bias, problem, engine)


def input_gradient(dy: Array, weight: Array, problem: Problem, engine: Primitives) -> Array:
    """``dx (N, *S, C)`` of ``dy (N, *O, F)``."""
    parts = reach(problem)
    if parts is None:
        return _input_gradient(dy, weight, problem, engine)
    dx = _zeros(problem.x_shape, dy, engine)
    if parts.problem is not None:
        met = of_spatial(dy, parts.outputs), of_kernel(weight, parts.cells)
        dx[(slice(None), *parts.inputs, slice(None))] = _input_gradient(*met, parts.problem, engine)
    return dx


def _input_gradient(dy: Array, weight: Array, problem: Problem, engine: Primitives) -> Array:
    """`input_gradient` of all parts."""
    asked = named.input_gradient(problem, engine)
    if asked is not None:
        return asked(dy, weight, problem, engine)
    if depthwise.serves(problem, engine):
        return depthwise.input_gradient(dy, weight, problem, engine)
    adjoint = problem.adjoint if engine.free_order else None
    if engine.few_launches and (adjoint is None or _winograd(adjoint) is None):
        return columns.input_gradient(dy, weight, problem, engine)
    if engine.free_order and rows.suits(problem) and not (adjoint is not None and direct.serves(adjoint, engine)):
        return rows.input_gradient(dy, weight, problem, engine)
    if adjoint is not None:
        return _forward(dy, weight, None, adjoint, engine)
    return columns.input_gradient(dy, weight, problem, engine)


def weight_gradient(x: Array, dy: Array, problem: Problem, engine: Primitives) -> Array:
    """``dweight (F, C/G, *K)``."""
    parts = reach(problem)
    if parts is None:
        return _weight_gradient(x, dy, problem, engine)
    shape = (problem.features, problem.channels // problem.groups, *problem.windows.kernel)
    dweight = _zeros(shape, x, engine)
    if parts.problem is not None:
        met = of_spatial(x, parts.inputs), of_spatial(dy, parts.outputs)
        dweight[(slice(None), slice(None), *parts.cells)] = _weight_gradient(*met, parts.problem, engine)
    return dweight


def _weight_gradient(x: Array, dy: Array, problem: Problem, engine: Primitives) -> Array:
    """`weight_gradient` of all parts."""
    return algorithm(problem, engine).weight_gradient(x, dy, problem, engine)


def _zeros(shape: tuple[int, ...], like: Array, engine: Primitives) -> Array:
    return engine.xp.zeros(shape, dtype=like.dtype, device=device(like))


def algorithm(problem: Problem, engine: Primitives) -> named.Algorithm:
    """The one that suits a problem."""
    if not engine.free_order:
        return columns
    asked = named.algorithm(problem, engine)
    if asked is not None:
        return asked
    if depthwise.serves(problem, engine):
        return depthwise
    tiles = _winograd(problem) if engine.views else None
    if engine.few_launches:
        return tiles or columns
    if stationary.suits(problem):
        return stationary
    if tiles is not None and min(problem.channels, problem.features) >= TILES_FROM:
        return tiles
    if direct.serves(problem, engine):
        return direct
    return tiles or _banded(problem) or columns


def _banded(problem: Problem) -> Banded | None:
    """As many neighbouring outputs together as suits a convolution with few channels."""
    if problem.algorithms == "direct" or problem.channels > 16:
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
