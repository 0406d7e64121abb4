"""Depthwise convolution by whole rows: the strips of a batch, and what each cell of the kernel reads of a strip."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from ...backends.contractions.windows import Windows
from ...backends.execution.blocks import Block, cut_batch, even_slices
from ...backends.operations import Operations
from ...common.types import Array
from .problem import Problem


@dataclass(frozen=True)
class Tap:
    """What a cell of the kernel reads: slices of the axes before the last, and a run of a part of the last axis."""

    before: tuple[slice, ...]
    part: int
    run: slice


@dataclass(frozen=True)
class DepthwiseRows:
    """A depthwise problem of at least two spatial axes, whose last axis and channels are joined to rows."""

    problem: Problem
    ops: Operations
    block_bytes: int

    @classmethod
    def of(cls, problem: Problem, ops: Operations, like: Array) -> "DepthwiseRows":
        """The rows of a problem; one of one axis gets an axis of a single cell before it."""
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
        """Shape of the output, ``(N, *O[:-1], O[-1]*F)``."""
        return (*self.problem.y_shape[:-2], self.problem.y_shape[-2] * self.problem.features)

    @property
    def strip_rows(self) -> int:
        """Rows of the first axis in a strip: half a block, because every cell of the kernel reads them again."""
        return max(1, self.block_bytes // (2 * max(1, 4 * prod(self.shape[2:]))))

    def blocks(self) -> list[Block]:
        """The batch in strips of rows."""
        return cut_batch(self.problem.samples, self.shape[1], self.strip_rows)

    def strips(self, samples: int) -> list[slice]:
        """The rows of some samples in strips."""
        return even_slices(self.shape[1], -(-self.shape[1] * samples // self.strip_rows))

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
        """``weight (F, 1, *K)`` as ``(K, O[-1]*F)``: each cell of the kernel repeated to the length of a row."""
        w = self.problem.windows
        cells = self.ops.xp.reshape(weight, (self.problem.features, w.cells))
        return self.ops.xp.tile(self.ops.xp.matrix_transpose(cells), (1, w.count[-1]))

    def parts(self, x: Array, block: Block) -> Array:
        """What a block reads of ``x (N, *S, C)``, padded, the last axis split into one part for each remainder modulo
        its stride: ``(stride, n, *S'[:-1], S'[-1]*F)``."""
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
