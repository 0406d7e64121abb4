"""Convolution as one matrix product: windows laid out as columns (im2col).

Serves any rank, stride, dilation and number of groups. The columns are made for a block of the batch at a time, by
`Operations.contract`, which is also where exact numerics comes in.

Source: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006.
"""

from math import prod

from ...backends.operations import Operations
from ...common.types import Array, Namespace
from .problem import Problem

# Entries of a group's weight up to which its copy is transposed.
SMALL = 1 << 15


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """``y (N, *O, F)``."""
    prepared = ops.prepare("columns", problem, problem.dtype)
    if prepared is not None:
        return prepared.forward(x, weight, bias)
    matrix = kernel_matrix(weight, problem, ops.xp)
    return ops.contract(x, matrix, problem.windows, problem.padding, bias)


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """``dx (N, *S, C)``: columns of ``dy``, added up where they were read."""
    prepared = ops.prepare("columns", problem, problem.dtype)
    if prepared is not None:
        return prepared.input_gradient(dy, weight)
    matrix = kernel_matrix(weight, problem, ops.xp)
    return ops.contract_input_gradient(dy, matrix, problem.windows, problem.x_shape, problem.padding)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C/G, *K)``."""
    prepared = ops.prepare("columns", problem, problem.dtype)
    if prepared is not None:
        return prepared.weight_gradient(x, dy)
    matrix = ops.contract_weight_gradient(x, dy, problem.windows, problem.groups, problem.padding)
    return kernel_of_matrix(matrix, problem, ops.xp)


def kernel_matrix(weight: Array, problem: Problem, xp: Namespace) -> Array:
    """``weight (F, C/G, *K)`` as the matrices ``(G, K*C/G, F/G)`` of `Operations.contract`.

    Of a large weight a transposed view of what is copied: the copy then reads and writes near to each other. Of a small
    one, products are faster where the matrix itself is in one piece.
    """
    cells = prod(weight.shape[2:])
    if problem.rotated:
        split = xp.flip(xp.reshape(weight, (*weight.shape[:2], cells)), axis=-1)
        return xp.reshape(xp.permute_dims(split, (2, 0, 1)), (1, cells * weight.shape[0], weight.shape[1]))
    groups = problem.groups
    features, channels = weight.shape[0] // groups, weight.shape[1]
    split = xp.reshape(weight, (groups, features, channels, cells))
    if cells * channels * features < SMALL:
        return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), (groups, cells * channels, features))
    return xp.matrix_transpose(xp.reshape(xp.permute_dims(split, (0, 1, 3, 2)), (groups, features, cells * channels)))


def kernel_of_matrix(matrix: Array, problem: Problem, xp: Namespace) -> Array:
    """``(G, K*C/G, F/G)`` as ``(F, C/G, *K)``: the inverse of `kernel_matrix`."""
    groups, kernel = problem.groups, problem.windows.kernel
    features, channels = problem.features // groups, problem.channels // groups
    split = xp.reshape(matrix, (groups, prod(kernel), channels, features))
    return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), (problem.features, channels, *kernel))
