"""Depthwise convolution: each channel is convolved by itself.

There is no sum over channels, so that no matrix product helps, and a cell of the kernel is one multiplication and one
addition of whole arrays. They are fast where runs are long and stay in a cache: a row of the output is one run of
``O * F`` numbers (its cells and their channels), the kernel's cell is repeated to that length, and the batch goes
through in strips of rows. For a stride along the last axis, the cells of a row are parted first into those that the
same cells of a kernel read.

With ``F = m C`` each channel has ``m`` kernels; it is repeated as often. Where the library has compiled kernels they
compute all but the gradient of such an input.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from array_api_compat import device

from ...backends import overrides
from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.contractions.windows import Windows
from ...backends.engines.numba import Kernels
from ...backends.execution.blocks import Block, cut, even_slices
from ...backends.operations import Operations
from ...common.types import Array
from .problem import Problem


def serves(problem: Problem, ops: Operations) -> bool:
    """Whether this algorithm computes the problem: a group for each of several channels."""
    return ops.free_order and problem.groups == problem.channels > 1


@dataclass(frozen=True)
class Tap:
    """A cell of the kernel: the axes before the last at which it reads, and where in which part of the last."""

    before: tuple[slice, ...]
    part: int
    run: slice


@dataclass(frozen=True)
class Rows:
    """A depthwise problem of two spatial axes or more, its last one and the channels joined to rows."""

    problem: Problem
    ops: Operations
    block_bytes: int

    @classmethod
    def of(cls, problem: Problem, ops: Operations, like: Array) -> "Rows":
        """A problem of one axis gets one of a single cell before it."""
        if len(problem.spatial) == 1:
            w = problem.windows
            windows = Windows((1, *w.kernel), (1, *w.stride), (1, *w.dilation), (1, *w.count))
            problem = replace(
                problem, spatial=(1, *problem.spatial), windows=windows, padding=((0, 0), *problem.padding)
            )
        return cls(problem, ops, ops.bytes_of_block(like))

    @property
    def multiplier(self) -> int:
        """Kernels of a channel."""
        return self.problem.features // self.problem.channels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output, ``(N, *O[:-1], O[-1]*F)``."""
        return (*self.problem.y_shape[:-2], self.problem.y_shape[-2] * self.problem.features)

    @property
    def most(self) -> int:
        """Rows of the first axis of a strip: half a block, for every cell of the kernel goes through them."""
        return max(1, self.block_bytes // (2 * max(1, 4 * prod(self.shape[2:]))))

    def blocks(self) -> list[Block]:
        """The batch in strips of rows."""
        return cut(self.problem.samples, self.shape[1], self.most)

    def strips(self, samples: int) -> list[slice]:
        """The rows of some samples in strips."""
        return even_slices(self.shape[1], -(-self.shape[1] * samples // self.most))

    def flat(self, dy: Array) -> Array:
        """Part of ``dy (N, *O, F)`` with the last two axes joined."""
        return self.ops.flat(dy, (*dy.shape[:-2], dy.shape[-2] * dy.shape[-1]), "upstream")

    def taps(self, rows: slice) -> Iterator[Tap]:
        """The cells of the kernel, in row-major order, for windows in these rows of the first axis."""
        w, features = self.problem.windows, self.problem.features
        strip = replace(w, count=(rows.stop - rows.start, *w.count[1:]))
        for i, index in enumerate(strip.slices()):
            first = rows.start * w.stride[0]
            lead = (slice(index[1].start + first, index[1].stop + first, index[1].step), *index[2:-2])
            offset, part = divmod(i % w.kernel[-1] * w.dilation[-1], w.stride[-1])
            yield Tap(lead, part, slice(offset * features, offset * features + self.shape[-1]))

    def repeated(self, weight: Array) -> Array:
        """``weight (F, 1, *K)`` as ``(K, O[-1]*F)``: each cell of the kernel as long as a row."""
        w = self.problem.windows
        cells = self.ops.xp.reshape(weight, (self.problem.features, w.cells))
        return self.ops.xp.tile(self.ops.xp.matrix_transpose(cells), (1, w.count[-1]))

    def part(self, x: Array, block: Block) -> tuple[Array, tuple[int, ...]]:
        """What a block reads of ``x (N, *S, C)`` within the input, ``(n, *S', F)``, and how far ahead windows begin."""
        w, rows, size = self.problem.windows, block.rows, self.problem.spatial[0]
        before = tuple(pair[0] for pair in self.problem.padding)
        first, last = rows.start * w.stride[0], (rows.stop - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1
        start, stop = min(max(first - before[0], 0), size), min(max(last - before[0], 0), size)
        found = x[block.samples, start:stop, ...]
        found = self.ops.flat(found, tuple(found.shape), "strip")
        if self.multiplier > 1:
            found = self.ops.xp.repeat(found, self.multiplier, axis=-1)
        return found, (before[0] - first + start, *before[1:])

    def parts(self, x: Array, block: Block) -> Array:
        """What a block reads of ``x (N, *S, C)``, by the part of the last axis: ``(stride, n, *S'[:-1], S'[-1]*F)``."""
        problem, ops = self.problem, self.ops
        stride = problem.windows.stride[-1]
        strip = ops.padded(x, problem.padding, block, problem.windows)
        if self.multiplier > 1:
            strip = ops.xp.repeat(strip, self.multiplier, axis=-1)
        lead, width = tuple(strip.shape[:-2]), strip.shape[-2]
        if stride == 1:
            return ops.flat(strip, (1, *lead, width * problem.features))
        length = -(-width // stride)
        parts = ops.workspace("parts", (stride, *lead, length, problem.features), x)
        for part in range(stride):
            cells = strip[..., part::stride, :]
            parts[part, ..., : cells.shape[-2], :] = cells
        return ops.xp.reshape(parts, (stride, *lead, length * problem.features))


def rows_of(windows: Windows, block: Block) -> Windows:
    """`Block.windows`, made once for each number of rows: workers take turns at what is not compiled."""
    return _first_rows(windows, block.rows.stop - block.rows.start)


@lru_cache(maxsize=64)
def _first_rows(windows: Windows, rows: int) -> Windows:
    return replace(windows, count=(rows, *windows.count[1:]))


# Products below which a kernel is not worth loading.
LEAST = 1 << 20


def _kernels(problem: Problem, ops: Operations) -> Kernels | None:
    """Compiled kernels that take the problem."""
    if problem.dtype != "float32" or overrides.small(problem.multiply_adds, LEAST):
        return None
    kernels = ops.kernels
    return kernels if kernels is not None and problem.features >= kernels.LANES else None


def forward(x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
    """``y (N, *O, F)``."""
    prepared = ops.prepare("depthwise", problem, problem.dtype)
    if prepared is not None:
        return prepared.forward(x, weight, bias)
    kernels = _kernels(problem, ops)
    if kernels is not None:
        return _by_kernel(x, weight, bias, problem, ops, kernels)
    xp, rows = ops.xp, Rows.of(problem, ops, x)
    x, kernel = xp.reshape(x, rows.problem.x_shape), rows.repeated(weight)
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
    return xp.reshape(y, problem.y_shape)


def _by_kernel(
    x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations, kernels: Kernels
) -> Array:
    """`forward`, compiled."""
    xp, rows = ops.xp, Rows.of(problem, ops, x)
    x, w = xp.reshape(x, rows.problem.x_shape), rows.problem.windows
    cells, first = _cells_of(weight, bias, rows)
    y = xp.empty(rows.problem.y_shape, dtype=x.dtype, device=device(x))
    blocks = rows.blocks()

    def work(i: int) -> None:
        out = y[blocks[i].samples, blocks[i].rows, ...]
        out = xp.reshape(out, (out.shape[0], prod(out.shape[1:-1]), problem.features))
        read, before = rows.part(x, blocks[i])
        kernels.convolve_by_channel(read, cells, first, rows_of(w, blocks[i]), before, out)

    ops.parallel(len(blocks) if problem.samples else 0, work)
    return xp.reshape(y, problem.y_shape)


def _input_by_kernel(dy: Array, weight: Array, problem: Problem, ops: Operations, kernels: Kernels) -> Array:
    """`input_gradient`, compiled, where each channel has one kernel."""
    xp, rows = ops.xp, Rows.of(problem, ops, dy)
    dy, w, spatial = xp.reshape(dy, rows.problem.y_shape), rows.problem.windows, rows.problem.spatial
    cells, zeros = _cells_of(weight, None, rows)
    dx = xp.empty(rows.problem.x_shape, dtype=dy.dtype, device=device(dy))
    whole = replace(w, count=spatial)
    blocks = ops.blocks(problem.samples, spatial[0], 8 * prod(spatial[1:]) * problem.channels, dy)

    def work(i: int) -> None:
        block = blocks[i]
        out = dx[block.samples, block.rows, ...]
        part = rows_of(whole, block)
        above, *others = (pair[0] for pair in rows.problem.padding)
        upstream = dy[block.samples, ...]
        upstream = ops.flat(upstream, tuple(upstream.shape), "upstream")
        out = xp.reshape(out, (out.shape[0], prod(part.count), problem.channels))
        before = (above + block.rows.start, *others)
        kernels.convolve_by_channel(upstream, cells, zeros, part, before, out, adjoint=True)

    ops.parallel(len(blocks) if problem.samples else 0, work)
    return xp.reshape(dx, problem.x_shape)


def _cells_of(weight: Array, bias: Array | None, rows: Rows) -> tuple[Array, Array]:
    """``weight (F, 1, *K)`` as ``(K, F)`` in one piece of memory, and the bias ``(F,)``, zeros where there is none."""
    features, cells = rows.problem.features, rows.problem.windows.cells
    found = rows.ops.workspace("matrix", (cells, features), weight)
    found[...] = rows.ops.xp.matrix_transpose(rows.ops.xp.reshape(weight, (features, cells)))
    first = rows.ops.workspace("bias", (features,), weight)
    first[...] = 0.0 if bias is None else bias
    return found, first


def _cells_by_kernel(x: Array, dy: Array, rows: Rows, kernels: Kernels) -> Array:
    """`weight_gradient`, compiled: ``(K, F)``."""
    ops, w, features = rows.ops, rows.problem.windows, rows.problem.features
    blocks = rows.blocks()
    sums = ops.xp.empty((len(blocks), w.cells, features), dtype=x.dtype, device=device(x))

    def work(i: int) -> None:
        block = blocks[i]
        part = dy[block.samples, block.rows, ...]
        upstream = ops.flat(part, (part.shape[0], prod(part.shape[1:-1]), features), "upstream")
        read, before = rows.part(x, block)
        kernels.correlate_by_channel(read, upstream, rows_of(w, block), before, sums[i, ...])

    ops.parallel(len(blocks), work)
    return ops.xp.sum(sums, axis=0)


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """``dx (N, *S, C)``: each cell of the kernel times ``dy``, added up where it read."""
    prepared = ops.prepare("depthwise", problem, problem.dtype)
    if prepared is not None:
        return prepared.input_gradient(dy, weight)
    kernels = _kernels(problem, ops)
    if kernels is not None and problem.features == problem.channels:
        return _input_by_kernel(dy, weight, problem, ops, kernels)
    xp, rows = ops.xp, Rows.of(problem, ops, dy)
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
        # Cell c of the last axis lies in part c % stride.
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
    """``dweight (F, 1, *K)``: for each cell of the kernel what it reads times ``dy``, summed over the rows, then along
    them."""
    prepared = ops.prepare("depthwise", problem, problem.dtype)
    if prepared is not None:
        return prepared.weight_gradient(x, dy)
    xp, rows = ops.xp, Rows.of(problem, ops, x)
    x, dy = xp.reshape(x, rows.problem.x_shape), xp.reshape(dy, rows.problem.y_shape)
    w, blocks = rows.problem.windows, rows.blocks()
    lanes = even_slices(len(blocks), min(len(blocks), PARTIAL_SUMS))
    sums = xp.zeros((len(lanes), w.cells, rows.shape[-1]), dtype=x.dtype, device=device(x))
    axes = tuple(range(len(rows.shape) - 1))
    kernels = _kernels(problem, ops)
    if kernels is not None:
        sums = _cells_by_kernel(x, dy, rows, kernels)
        return xp.reshape(xp.matrix_transpose(sums), (problem.features, 1, *problem.windows.kernel))

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
