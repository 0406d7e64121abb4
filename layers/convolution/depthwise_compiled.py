"""Depthwise convolution by compiled kernels, which read the input without padding and compute channels in vectors."""

from dataclasses import replace
from functools import lru_cache
from math import prod

from array_api_compat import device

from ...backends import overrides
from ...backends.contractions.windows import Windows
from ...backends.engines.numba import Kernels
from ...backends.execution.blocks import Block
from ...backends.operations import Operations
from ...common.types import Array
from .depthwise_rows import DepthwiseRows
from .problem import Problem

# Multiply-adds below which loading a kernel takes longer than it saves.
MIN_MULTIPLY_ADDS = 1 << 20


def kernels_for(problem: Problem, ops: Operations) -> Kernels | None:
    """The compiled kernels if they can compute the problem, and it is large enough."""
    if problem.dtype != "float32" or overrides.is_small(problem.multiply_adds, MIN_MULTIPLY_ADDS):
        return None
    kernels = ops.kernels
    return kernels if kernels is not None and problem.features >= kernels.VECTOR_LANES else None


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations, kernels: Kernels) -> Array:
    """``y (N, *O, F)``."""
    xp, rows = ops.xp, DepthwiseRows.of(problem, ops, x)
    x, w = xp.reshape(x, rows.problem.x_shape), rows.problem.windows
    cells, offsets = _operands(weight, bias, rows)
    y = xp.empty(rows.problem.y_shape, dtype=x.dtype, device=device(x))
    blocks = rows.blocks()

    def work(i: int) -> None:
        out = y[blocks[i].samples, blocks[i].rows, ...]
        out = xp.reshape(out, (out.shape[0], prod(out.shape[1:-1]), problem.features))
        read, before = rows.unpadded(x, blocks[i])
        kernels.convolve_by_channel(read, cells, offsets, _windows_of(w, blocks[i]), before, out)

    ops.parallel(len(blocks) if problem.samples else 0, work)
    return xp.reshape(y, problem.y_shape)


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations, kernels: Kernels) -> Array:
    """``dx (N, *S, C)``, where each channel has one kernel."""
    xp, rows = ops.xp, DepthwiseRows.of(problem, ops, dy)
    dy, w, spatial = xp.reshape(dy, rows.problem.y_shape), rows.problem.windows, rows.problem.spatial
    cells, zeros = _operands(weight, None, rows)
    dx = xp.empty(rows.problem.x_shape, dtype=dy.dtype, device=device(dy))
    whole = replace(w, count=spatial)
    blocks = ops.blocks(problem.samples, spatial[0], 8 * prod(spatial[1:]) * problem.channels, dy)

    def work(i: int) -> None:
        block = blocks[i]
        out = dx[block.samples, block.rows, ...]
        part = _windows_of(whole, block)
        above, *others = (pair[0] for pair in rows.problem.padding)
        upstream = dy[block.samples, ...]
        upstream = ops.flat(upstream, tuple(upstream.shape), "upstream")
        out = xp.reshape(out, (out.shape[0], prod(part.count), problem.channels))
        before = (above + block.rows.start, *others)
        kernels.convolve_by_channel(upstream, cells, zeros, part, before, out, adjoint=True)

    ops.parallel(len(blocks) if problem.samples else 0, work)
    return xp.reshape(dx, problem.x_shape)


def weight_sums(x: Array, dy: Array, rows: DepthwiseRows, kernels: Kernels) -> Array:
    """The gradient of the weight as ``(K, F)``."""
    ops, w, features = rows.ops, rows.problem.windows, rows.problem.features
    blocks = rows.blocks()
    sums = ops.xp.empty((len(blocks), w.cells, features), dtype=x.dtype, device=device(x))

    def work(i: int) -> None:
        block = blocks[i]
        part = dy[block.samples, block.rows, ...]
        upstream = ops.flat(part, (part.shape[0], prod(part.shape[1:-1]), features), "upstream")
        read, before = rows.unpadded(x, block)
        kernels.correlate_by_channel(read, upstream, _windows_of(w, block), before, sums[i, ...])

    ops.parallel(len(blocks), work)
    return ops.xp.sum(sums, axis=0)


def _operands(weight: Array, bias: Array | None, rows: DepthwiseRows) -> tuple[Array, Array]:
    """``weight (F, 1, *K)`` as a contiguous ``(K, F)``, and the bias ``(F,)``, zeros if it is None."""
    features, cells = rows.problem.features, rows.problem.windows.cells
    matrix = rows.ops.workspace("matrix", (cells, features), weight)
    matrix[...] = rows.ops.xp.matrix_transpose(rows.ops.xp.reshape(weight, (features, cells)))
    offsets = rows.ops.workspace("bias", (features,), weight)
    offsets[...] = 0.0 if bias is None else bias
    return matrix, offsets


def _windows_of(windows: Windows, block: Block) -> Windows:
    """`Block.windows`, made once for each number of rows: Python code of the workers runs one after the other."""
    return _first_rows(windows, block.rows.stop - block.rows.start)


@lru_cache(maxsize=64)
def _first_rows(windows: Windows, rows: int) -> Windows:
    return replace(windows, count=(rows, *windows.count[1:]))
