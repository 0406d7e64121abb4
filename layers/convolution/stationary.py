"""Convolution with few outputs and a large weight: the weight as it lies, the columns turned to it.

Where a batch has fewer outputs than the weight has filters, laying out the weight takes longer than the product. Here
the weight ``(F, C*K)`` is the left factor and is only read; the columns are ``(C*K, N*O)``::

    y[f, (n, o)] = sum over c, k of  weight[f, (c, k)] * columns[(c, k), (n, o)]

or with cells before channels on both sides, or the factors the other way round, as the weight lies: an optimizer keeps
it as its gradient is.
"""

from math import prod

from ...backends.execution.blocks import whole
from ...backends.operations import Operations
from ...common.types import Array
from . import columns
from .problem import Problem

# Entries of a weight from which it counts as large.
LARGE = 1 << 17


def suits(problem: Problem) -> bool:
    """Whether there are few outputs for a large weight that is not to be rotated."""
    entries = problem.features * problem.channels * problem.windows.cells
    few = problem.samples * prod(problem.windows.count) < problem.features
    return few and serves(problem) and entries >= LARGE


def serves(problem: Problem) -> bool:
    """Whether this algorithm computes the problem: one group, and a weight that is not to be rotated."""
    return problem.groups == 1 and not problem.rotated


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """``y (N, *O, F)``."""
    xp, windows = ops.xp, problem.windows
    strip = ops.padded(x, problem.padding, whole(problem.samples, windows), windows)
    cells = ops.windows(strip, windows)
    axes = len(windows.count)
    depth, outputs = problem.channels * windows.cells, problem.samples * prod(windows.count)
    kernel, last = tuple(range(1 + axes, 1 + 2 * axes)), cells.ndim - 1
    spatial = tuple(range(2, weight.ndim))
    lies = ops.memory_order(weight)
    if lies == (*spatial, 1, 0):
        y = ops.product(ops.flat(cells, (outputs, depth)), columns.kernel_matrix(weight, problem, xp)[0, ...])
        if bias is not None:
            y += bias
        return xp.reshape(y, problem.y_shape)
    if lies == (0, *spatial, 1):
        order, weight = (*kernel, last), xp.permute_dims(weight, lies)
    else:
        order = (last, *kernel)
    turned = ops.flat(xp.permute_dims(cells, (*order, *range(1 + axes))), (depth, outputs))
    y = ops.product(xp.reshape(weight, (problem.features, depth)), turned)
    if bias is not None:
        y += xp.reshape(bias, (problem.features, 1))
    y = xp.reshape(y, (problem.features, problem.samples, *windows.count))
    return xp.permute_dims(y, (*range(1, y.ndim), 0))


weight_gradient = columns.weight_gradient
