"""Direct convolution by a compiled kernel: sums of products read from the input itself, without columns.

The input goes through in blocks within its padding, and features in vectors: where they fill none, the weight is
widened by zeros and what comes out is cut. Serves any rank, stride and dilation of one group in float32, where the
library has kernels (`xpnn.backends.engines.numba`).
"""

from math import prod

from array_api_compat import device

from ...backends import overrides
from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.engines.numba import Kernels
from ...backends.execution.blocks import Block, even_slices
from ...backends.operations import Operations
from ...common.types import Array
from .columns import kernel_matrix, kernel_of_matrix
from .problem import Problem
from .strips import strip

# Products below which a kernel is not worth loading.
LEAST = 1 << 20
# Numbers of a weight up to which it stays in a cache; beyond, matrix products are up to twice as fast.
LARGEST = 1 << 19


def serves(problem: Problem, ops: Operations) -> bool:
    """Whether there is a kernel, and enough to do for it."""
    return (
        ops.free_order
        and problem.groups == 1
        and problem.dtype == "float32"
        and problem.windows.cells > 1
        and not overrides.small(problem.multiply_adds, LEAST)
        and problem.windows.cells * problem.channels * problem.features <= LARGEST
        and ops.kernels is not None
    )


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """``y (N, *O, F)``."""
    xp, kernels = ops.xp, _kernels(ops)
    features, wide = problem.features, kernels.width(problem.features)
    found = kernel_matrix(weight, problem, xp)[0, ...]
    matrix = ops.workspace("matrix", (found.shape[0], wide), x)
    matrix[:, :features], matrix[:, features:] = found, 0.0
    first = ops.workspace("bias", (wide,), x)
    first[...] = 0.0
    if bias is not None:
        first[:features] = bias
    y = xp.empty((problem.samples * prod(problem.windows.count), features), dtype=x.dtype, device=device(x))
    blocks = _blocks(problem, ops, x)

    def work(i: int) -> None:
        read, windows = strip(x, blocks[i], problem, ops, kernels), blocks[i].windows(problem.windows)
        kernels.convolve(read, matrix, first, windows, y[_place(blocks[i], problem), :])

    ops.parallel(len(blocks), work)
    return xp.reshape(y, problem.y_shape)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C, *K)``: each worker adds up over blocks of its lanes, which do not depend on the workers."""
    xp, kernels = ops.xp, _kernels(ops)
    features, wide = problem.features, kernels.width(problem.features)
    depth = problem.windows.cells * problem.channels
    zeros = ops.workspace("bias", (wide,), x)
    zeros[...] = 0.0
    blocks = _blocks(problem, ops, x)
    lanes = even_slices(len(blocks), min(len(blocks), PARTIAL_SUMS))
    parts = xp.empty((len(lanes), depth, features), dtype=x.dtype, device=device(x))

    def work(lane: int) -> None:
        part = parts[lane, ...]
        for j in range(lanes[lane].start, lanes[lane].stop):
            fresh = j == lanes[lane].start
            found = part if fresh else ops.workspace("part", (depth, features), x)
            rows = dy[blocks[j].samples, blocks[j].rows, ...]
            upstream = ops.flat(rows, (prod(rows.shape[:-1]), features), "upstream")
            if wide > features:
                narrow, upstream = upstream, ops.workspace("features", (upstream.shape[0], wide), x)
                kernels.widen(narrow, upstream)
            read = strip(x, blocks[j], problem, ops, kernels)
            kernels.correlate(read, upstream, zeros, blocks[j].windows(problem.windows), found)
            if not fresh:
                part += found

    ops.parallel(len(lanes), work)
    return kernel_of_matrix(xp.reshape(sum_in_order(parts), (1, depth, features)), problem, xp)


def _kernels(ops: Operations) -> Kernels:
    """Those that `serves` found."""
    assert ops.kernels is not None
    return ops.kernels


def _blocks(problem: Problem, ops: Operations, x: Array) -> list[Block]:
    """The batch in blocks whose input and output stay in a cache."""
    w = problem.windows
    row_bytes = 4 * (prod(w.count[1:]) * problem.features + w.stride[0] * prod(problem.spatial[1:]) * problem.channels)
    return ops.blocks(problem.samples, w.count[0], 2 * row_bytes, x)


def _place(block: Block, problem: Problem) -> slice:
    """Where a block's windows stand among those of the batch."""
    rows, row_cells = problem.windows.count[0], prod(problem.windows.count[1:])
    first = (block.samples.start * rows + block.rows.start) * row_cells
    return slice(first, ((block.samples.stop - 1) * rows + block.rows.stop) * row_cells)
