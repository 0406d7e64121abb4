"""What compiled kernels read of an input: a part of it within its padding, in one piece of memory."""

from ...backends.engines.numba import Kernels
from ...backends.execution.blocks import Block
from ...backends.operations import Operations
from ...common.types import Array
from .problem import Problem


def strip(x: Array, block: Block, problem: Problem, ops: Operations, kernels: Kernels) -> Array:
    """Of ``x (N, *S, C)`` what the windows of a block read: ``(n, *S', C)``."""
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
