"""Convolution with a large weight and few outputs: the weight is not copied.

Where a batch has fewer outputs than the weight has filters, rearranging the weight takes longer than the product. Here
the weight ``(F, C*K)`` is the left factor in its own memory layout, and the columns are ``(C*K, N*O)``::

    y[f, (n, o)] = sum over c, k of  weight[f, (c, k)] * columns[(c, k), (n, o)]

The memory layout of the weight, which after an update is that of its gradient, decides the order of the two factors,
and whether channels or cells come first in both.
"""

from math import prod

from ...backends.execution.blocks import whole_batch
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from . import columns
from .problem import Problem

# Size of a weight from which it counts as large.
MIN_WEIGHT_SIZE = 1 << 17


def suits(problem: Problem) -> bool:
    """Whether there are few outputs for a large weight that is not rotated."""
    size = problem.features * problem.channels * problem.windows.cells
    few = problem.samples * prod(problem.windows.count) < problem.features
    return few and serves(problem) and size >= MIN_WEIGHT_SIZE


def serves(problem: Problem) -> bool:
    """Whether this algorithm computes the problem: one group, and a weight that is not rotated."""
    return problem.groups == 1 and not problem.rotated


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
    xp, windows = ops.xp, problem.windows
    strip = ops.padded(x, problem.padding, whole_batch(problem.samples, windows), windows)
    cells = ops.windows(strip, windows)
    axes = len(windows.count)
    depth, outputs = problem.channels * windows.cells, problem.samples * prod(windows.count)
    kernel, last = tuple(range(1 + axes, 1 + 2 * axes)), cells.ndim - 1
    spatial = tuple(range(2, weight.ndim))
    memory_order = ops.memory_order(weight)
    if memory_order == (*spatial, 1, 0):
        y = ops.product(ops.flat(cells, (outputs, depth)), columns.kernel_matrix(weight, problem, xp)[0, ...])
        if bias is not None:
            y += bias
        return xp.reshape(ops.relu_in_place(y) if relu else y, problem.y_shape)
    if memory_order == (0, *spatial, 1):
        order, weight = (*kernel, last), xp.permute_dims(weight, memory_order)
    else:
        order = (last, *kernel)
    transposed = ops.flat(xp.permute_dims(cells, (*order, *range(1 + axes))), (depth, outputs))
    y = ops.product(xp.reshape(weight, (problem.features, depth)), transposed)
    if bias is not None:
        y += xp.reshape(bias, (problem.features, 1))
    y = xp.reshape(ops.relu_in_place(y) if relu else y, (problem.features, problem.samples, *windows.count))
    return xp.permute_dims(y, (*range(1, y.ndim), 0))


weight_gradient = columns.weight_gradient
