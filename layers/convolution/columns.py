"""Convolution as one matrix product: the windows are copied into the columns of a matrix (im2col).

It computes any rank, stride, dilation and number of groups. `Operations.contract` makes the columns for a block of the
batch at a time; it has a version for exact numerics.

Source: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006.
"""

from math import prod

from ...backends.operations import Operations
from ...common.types import Array, Namespace
from ..core.kept import Keep, compute
from . import prepared
from .problem import Problem

# Size of a group's weight below which the copy itself is made contiguous.
CONTIGUOUS_SIZE = 1 << 15


def is_compiled(problem: Problem, ops: Operations) -> bool:
    """Whether an engine computes the problem, so that copies of small parts cost little."""
    return prepared.find("columns", problem, ops) is not None


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
    engine = prepared.find("columns", problem, ops)
    if engine is not None:
        return prepared.forward(engine, "columns", x, weight, bias, problem, keep, relu)
    matrix = kept_matrix(weight, problem, ops.xp, keep)
    y = ops.contract(x, matrix, problem.windows, problem.padding, bias)
    return ops.relu_in_place(y) if relu else y


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations, keep: Keep = compute) -> Array:
    """``dx (N, *S, C)``: products of ``dy`` and the weight, added up where windows read (col2im)."""
    engine = prepared.find("columns", problem, ops)
    if engine is not None:
        return engine.input_gradient(dy, weight)
    matrix = kept_matrix(weight, problem, ops.xp, keep)
    return ops.contract_input_gradient(dy, matrix, problem.windows, problem.x_shape, problem.padding)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C/G, *K)``."""
    engine = prepared.find("columns", problem, ops)
    if engine is not None:
        return engine.weight_gradient(x, dy)
    matrix = ops.contract_weight_gradient(x, dy, problem.windows, problem.groups, problem.padding)
    return kernel_of_matrix(matrix, problem, ops.xp)


def kept_matrix(weight: Array, problem: Problem, xp: Namespace, keep: Keep) -> Array:
    """`kernel_matrix` for a forward, kept in evaluation."""
    joined = problem.features if problem.rotated else problem.channels // problem.groups
    if 1 in (joined, problem.windows.cells):
        # A view of the weight, if that is in the order of its axes.
        return kernel_matrix(weight, problem, xp)
    # Not the key of an engine's own layout: small batches of a layer are computed here, larger ones by an engine.
    return keep(("matrix", problem.rotated, problem.groups), lambda: kernel_matrix(weight, problem, xp))


def kernel_matrix(weight: Array, problem: Problem, xp: Namespace) -> Array:
    """``weight (F, C/G, *K)`` as the matrices ``(G, K*C/G, F/G)`` of `Operations.contract`.

    Of a large weight it is the transposed view of a copy, because that copy reads and writes neighbouring memory. Of a
    small one it is contiguous, because products are faster then.
    """
    cells = prod(weight.shape[2:])
    if problem.rotated:
        split = xp.flip(xp.reshape(weight, (*weight.shape[:2], cells)), axis=-1)
        return xp.reshape(xp.permute_dims(split, (2, 0, 1)), (1, cells * weight.shape[0], weight.shape[1]))
    groups = problem.groups
    features, channels = weight.shape[0] // groups, weight.shape[1]
    split = xp.reshape(weight, (groups, features, channels, cells))
    if cells * channels * features < CONTIGUOUS_SIZE:
        return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), (groups, cells * channels, features))
    return xp.matrix_transpose(xp.reshape(xp.permute_dims(split, (0, 1, 3, 2)), (groups, features, cells * channels)))


def kernel_of_matrix(matrix: Array, problem: Problem, xp: Namespace) -> Array:
    """``(G, K*C/G, F/G)`` as ``(F, C/G, *K)``: the inverse of `kernel_matrix`."""
    groups, kernel = problem.groups, problem.windows.kernel
    features, channels = problem.features // groups, problem.channels // groups
    split = xp.reshape(matrix, (groups, prod(kernel), channels, features))
    return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), (problem.features, channels, *kernel))
