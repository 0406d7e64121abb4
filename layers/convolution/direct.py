"""Direct convolution by a compiled kernel: sums of products are read from the input itself, without columns.

The kernel reads the input in padded blocks and computes features in vectors; to fill the last vector, the weight is
padded by zeros and the result is cut. It computes any rank, stride and dilation of one group in float32, where the
compiled kernels of `xpnn.backends.engines.numba` are installed.
"""

from math import prod

from array_api_compat import device

from ...backends import overrides
from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.engines.numba import Kernels
from ...backends.execution.blocks import Block, even_slices
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from .columns import kept_matrix, kernel_of_matrix
from .problem import Problem

# Multiply-adds below which loading the kernel takes longer than it saves.
MIN_MULTIPLY_ADDS = 1 << 20
# Size of a weight up to which it stays in a cache; beyond, matrix products are up to twice as fast.
MAX_WEIGHT_SIZE = 1 << 19


def serves(problem: Problem, ops: Operations) -> bool:
    """Whether there is a kernel, and enough work for it."""
    return (
        ops.free_order
        and problem.groups == 1
        and problem.dtype == "float32"
        and problem.windows.cells > 1
        and not overrides.is_small(problem.multiply_adds, MIN_MULTIPLY_ADDS)
        and problem.windows.cells * problem.channels * problem.features <= MAX_WEIGHT_SIZE
        and ops.kernels is not None
    )


def forward(
    x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations, keep: Keep = compute
) -> Array:
    """``y (N, *O, F)``."""
    xp, kernels = ops.xp, _kernels(ops)
    features, wide = problem.features, kernels.width(problem.features)
    narrow = kept_matrix(weight, problem, xp, keep)[0, ...]
    matrix = ops.workspace("matrix", (narrow.shape[0], wide), x)
    matrix[:, :features], matrix[:, features:] = narrow, 0.0
    offsets = ops.workspace("bias", (wide,), x)
    offsets[...] = 0.0
    if bias is not None:
        offsets[:features] = bias
    y = xp.empty((problem.samples * prod(problem.windows.count), features), dtype=x.dtype, device=device(x))
    blocks = _blocks(problem, ops, x)

    def work(i: int) -> None:
        strip, windows = _strip(x, blocks[i], problem, ops, kernels), blocks[i].windows(problem.windows)
        kernels.convolve(strip, matrix, offsets, windows, y[_place(blocks[i], problem), :])

    ops.parallel(len(blocks), work)
    return xp.reshape(y, problem.y_shape)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, C, *K)``: each lane adds up its blocks; lanes do not depend on the number of workers."""
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
            is_first = j == lanes[lane].start
            sums = part if is_first else ops.workspace("part", (depth, features), x)
            rows = dy[blocks[j].samples, blocks[j].rows, ...]
            upstream = ops.flat(rows, (prod(rows.shape[:-1]), features), "upstream")
            if wide > features:
                narrow, upstream = upstream, ops.workspace("features", (upstream.shape[0], wide), x)
                kernels.widen(narrow, upstream)
            strip = _strip(x, blocks[j], problem, ops, kernels)
            kernels.correlate(strip, upstream, zeros, blocks[j].windows(problem.windows), sums)
            if not is_first:
                part += sums

    ops.parallel(len(lanes), work)
    return kernel_of_matrix(xp.reshape(sum_in_order(parts), (1, depth, features)), problem, xp)


def _kernels(ops: Operations) -> Kernels:
    """The compiled kernels, which `serves` requires."""
    assert ops.kernels is not None
    return ops.kernels


def _blocks(problem: Problem, ops: Operations, x: Array) -> list[Block]:
    """The batch in blocks whose input and output stay in a cache."""
    w = problem.windows
    row_bytes = 4 * (prod(w.count[1:]) * problem.features + w.stride[0] * prod(problem.spatial[1:]) * problem.channels)
    return ops.blocks(problem.samples, w.count[0], 2 * row_bytes, x)


def _place(block: Block, problem: Problem) -> slice:
    """Positions of a block's windows among those of the batch."""
    rows, row_cells = problem.windows.count[0], prod(problem.windows.count[1:])
    first = (block.samples.start * rows + block.rows.start) * row_cells
    return slice(first, ((block.samples.stop - 1) * rows + block.rows.stop) * row_cells)


def _strip(x: Array, block: Block, problem: Problem, ops: Operations, kernels: Kernels) -> Array:
    """The part of ``x (N, *S, C)`` that the windows of a block read, padded and contiguous: ``(n, *S', C)``."""
    xp = ops.xp
    if not problem.is_padded or len(problem.spatial) != 2:
        padded = ops.padded(x, problem.padding, block, problem.windows)
        return ops.flat(padded, tuple(padded.shape))
    (above, _), (left, right) = problem.padding
    height, width = problem.spatial
    first, last = block.reach(problem.windows)
    source = slice(min(max(first - above, 0), height), min(max(last - above, 0), height))
    part = x[block.samples, source, ...]
    part = ops.flat(part, (block.count, source.stop - source.start, width * problem.channels))
    shape = (block.count, last - first, left + width + right, problem.channels)
    padded = ops.workspace("padded", shape, x)
    rows = xp.reshape(padded, (*shape[:2], shape[2] * shape[3]))
    kernels.pad(part, min(max(above - first, 0), last - first), left * problem.channels, rows)
    return padded
