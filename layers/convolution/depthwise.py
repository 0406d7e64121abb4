"""Depthwise convolution: each channel is convolved with kernels of its own.

There is no sum over channels, so a matrix product gains nothing; each cell of the kernel is one multiplication and one
addition of whole arrays. These are fast if runs are long and stay in a cache. Therefore a row of the output is one run
of ``O * F`` numbers (its cells and their channels), the cell of the kernel is repeated to that length, and the batch is
computed in strips of rows. With a stride along the last axis, the cells of a row are first split by their remainder
modulo the stride, so that a cell of the kernel reads a run of one part.

With ``F = m C`` each channel has ``m`` kernels, and the input's channels are repeated ``m`` times. Where an engine has
the operation, it computes all this.
"""

from math import prod

from array_api_compat import device

from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.execution.blocks import even_slices
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from . import prepared
from .depthwise_rows import DepthwiseRows
from .problem import Problem


def serves(problem: Problem, ops: Operations) -> bool:
    """Whether this algorithm computes the problem: a group for each of several channels."""
    return ops.free_order and problem.groups == problem.channels > 1


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
    engine = prepared.find("depthwise", problem, ops)
    if engine is not None:
        return prepared.forward(engine, "depthwise", x, weight, bias, problem, keep, relu)
    xp, rows = ops.xp, DepthwiseRows.of(problem, ops, x)
    x = xp.reshape(x, rows.problem.x_shape)
    kernel = keep(("depthwise", problem.windows.count[-1]), lambda: rows.repeated(weight))
    bias_row = None if bias is None else xp.tile(bias, (problem.windows.count[-1],))
    y = xp.empty(rows.shape, dtype=x.dtype, device=device(x))
    blocks = rows.blocks()

    def work(i: int) -> None:
        block = blocks[i]
        parts = rows.parts(x, block)
        strip = y[block.samples, block.rows, ...]
        strip[...] = 0.0 if bias_row is None else bias_row
        for k, tap in enumerate(rows.taps(slice(0, block.rows.stop - block.rows.start))):
            strip += parts[(tap.part, slice(None), *tap.before, tap.run)] * kernel[k, :]

    ops.parallel(len(blocks) if problem.samples else 0, work)
    y = xp.reshape(y, problem.y_shape)
    return ops.relu_in_place(y) if relu else y


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """``dx (N, *S, C)``: each cell of the kernel times ``dy``, added up where that cell read."""
    engine = prepared.find("depthwise", problem, ops)
    if engine is not None:
        return engine.input_gradient(dy, weight)
    xp, rows = ops.xp, DepthwiseRows.of(problem, ops, dy)
    dy, kernel = xp.reshape(dy, rows.problem.y_shape), rows.repeated(weight)
    stride, features, channels = rows.problem.windows.stride[-1], problem.features, problem.channels
    pairs = rows.problem.padding
    wide = tuple(low + n + high for n, (low, high) in zip(rows.problem.spatial, pairs, strict=True))
    inside = tuple(slice(low, low + n) for n, (low, _) in zip(rows.problem.spatial, pairs, strict=True))
    length = -(-wide[-1] // stride)
    dx = xp.empty(rows.problem.x_shape, dtype=dy.dtype, device=device(dy))
    blocks = ops.blocks(problem.samples, 1, 4 * prod(wide) * features, dy)

    def work(i: int) -> None:
        samples = blocks[i].samples
        parts = ops.workspace("parts", (stride, blocks[i].count, *wide[:-1], length * features), dy)
        parts[...] = 0.0
        for some in rows.strips(blocks[i].count):
            upstream = rows.flat(dy[samples, some, ...])
            for k, tap in enumerate(rows.taps(some)):
                parts[(tap.part, slice(None), *tap.before, tap.run)] += upstream * kernel[k, :]
        # Cell c of the last axis is in part c % stride.
        split = xp.reshape(parts, (stride, blocks[i].count, *wide[:-1], length, features))
        sums = xp.moveaxis(split, 0, -2) if stride > 1 else split[0, ...]
        sums = xp.reshape(sums, (blocks[i].count, *wide[:-1], length * stride, features))
        sums = sums[(slice(None), *inside, slice(None))]
        if rows.multiplier > 1:
            sums = xp.sum(xp.reshape(sums, (*sums.shape[:-1], channels, rows.multiplier)), axis=-1)
        dx[samples, ...] = sums

    ops.parallel(len(blocks) if problem.samples else 0, work)
    return xp.reshape(dx, problem.x_shape)


def weight_gradient(x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
    """``dweight (F, 1, *K)``: for each cell of the kernel what it reads times ``dy``, summed over the rows, and then
    along them."""
    engine = prepared.find("depthwise", problem, ops)
    if engine is not None:
        return engine.weight_gradient(x, dy)
    xp, rows = ops.xp, DepthwiseRows.of(problem, ops, x)
    x, dy = xp.reshape(x, rows.problem.x_shape), xp.reshape(dy, rows.problem.y_shape)
    w, blocks = rows.problem.windows, rows.blocks()
    lanes = even_slices(len(blocks), min(len(blocks), PARTIAL_SUMS))
    sums = xp.zeros((len(lanes), w.cells, rows.shape[-1]), dtype=x.dtype, device=device(x))
    axes = tuple(range(len(rows.shape) - 1))

    def work(lane: int) -> None:
        for block in blocks[lanes[lane]]:
            parts = rows.parts(x, block)
            upstream = rows.flat(dy[block.samples, block.rows, ...])
            for k, tap in enumerate(rows.taps(slice(0, block.rows.stop - block.rows.start))):
                read = parts[(tap.part, slice(None), *tap.before, tap.run)]
                sums[lane, k, :] += xp.sum(read * upstream, axis=axes)

    ops.parallel(len(lanes) if problem.samples else 0, work)
    total = xp.sum(xp.reshape(sum_in_order(sums), (w.cells, w.count[-1], problem.features)), axis=1)
    return xp.reshape(xp.matrix_transpose(total), (problem.features, 1, *problem.windows.kernel))
