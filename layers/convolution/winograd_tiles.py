"""Tiles of Winograd's convolution: how input and output are cut, and the copies between planes and tiles."""

from dataclasses import dataclass
from math import prod

from ...backends.contractions.windows import Windows
from ...backends.execution.blocks import Block, cut_batch, even_slices
from ...backends.operations import Operations
from ...common.types import Array, Namespace
from .problem import Problem
from .winograd_transforms import CELLS, KERNEL, POINTS, Matrix, transforms

# Bytes of transformed weights from which workers share the filters instead of the tiles. Below, every worker reads all
# of the weights, which stay in a cache.
SHARE_FILTERS_BYTES = 3 << 20
# Bytes of transformed tiles of the input that are in memory at a time where workers share the filters.
INPUT_TILES_BYTES = 16 << 20
# Bytes of transformed tiles of input and output that a worker computes at a time.
BLOCK_BYTES = 2 << 20
# For a product of three sizes below this, OpenBLAS does not pack its operands.
UNPACKED_PRODUCT = 1_000_000


@dataclass(frozen=True)
class Tiling:
    """How outputs are cut into tiles of ``m x m``."""

    problem: Problem
    m: int
    shares_filters: bool = False

    @property
    def side(self) -> int:
        """``n``: inputs along a tile's side."""
        return self.m + KERNEL - 1

    @property
    def points(self) -> int:
        """``n^2``: products for each tile and pair of channels."""
        return self.side * self.side

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""
        rows, columns = self.problem.windows.count
        return -(-rows // self.m), -(-columns // self.m)

    @property
    def inputs(self) -> Windows:
        """Positions of the tiles of the input, padded to `input_padding`."""
        return Windows((self.side, self.side), (self.m, self.m), (1, 1), self.grid)

    @property
    def input_padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros around the input, those of incomplete last tiles included."""
        return tuple(
            (before, (tiles - 1) * self.m + self.side - before - n)
            for n, tiles, (before, _) in zip(self.problem.spatial, self.grid, self.problem.padding, strict=True)
        )

    @property
    def outputs(self) -> Windows:
        """Positions of the tiles of the output, padded to `output_padding`."""
        return Windows((self.m, self.m), (self.m, self.m), (1, 1), self.grid)

    @property
    def output_padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros after the output, for incomplete last tiles."""
        count = self.problem.windows.count
        return tuple((0, tiles * self.m - n) for n, tiles in zip(count, self.grid, strict=True))

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        """`transforms` for these tiles."""
        return transforms(POINTS[self.m], self.m)

    @property
    def is_large(self) -> bool:
        """Whether workers share the filters: the transformed weights are large, or ``shares_filters`` is set."""
        size = 4 * self.points * self.problem.channels * self.problem.features
        return self.shares_filters or size > SHARE_FILTERS_BYTES

    def blocks(self, first: int, samples: int) -> list[Block]:
        """Tiles of some samples in blocks for a worker."""
        most = BLOCK_BYTES // (4 * self.points * (self.problem.channels + self.problem.features))
        unpacked = (UNPACKED_PRODUCT - 1) // (self.problem.channels * self.problem.features)
        if unpacked >= 32:
            most = min(most, unpacked)
        rows, columns = self.grid
        blocks = cut_batch(samples, rows, most // columns)
        return [Block(slice(first + b.samples.start, first + b.samples.stop), b.rows) for b in blocks]

    def sample_groups(self) -> list[slice]:
        """Samples whose tiles of the input are in memory at a time where workers share the filters."""
        size = 4 * self.points * prod(self.grid) * self.problem.channels
        return even_slices(self.problem.samples, -(-self.problem.samples // max(1, INPUT_TILES_BYTES // size)))

    def filters(self, tiles: int) -> list[slice]:
        """Filters that a worker computes at a time where workers share them."""
        unpacked = (UNPACKED_PRODUCT - 1) // max(1, tiles * self.problem.channels)
        most = min(unpacked, 32) if unpacked >= 16 else 64
        return even_slices(self.problem.features, -(-self.problem.features // most))

    def tiles(self, block: Block) -> int:
        """Number of tiles in a block."""
        return block.count * int(block.rows.stop - block.rows.start) * self.grid[1]

    def place(self, block: Block, first: int) -> slice:
        """Positions of a block's tiles among those of all samples from ``first`` on."""
        rows, columns = self.grid
        start = ((block.samples.start - first) * rows + block.rows.start) * columns
        return slice(start, start + self.tiles(block))


def write_input_tiles(x: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, ops: Operations) -> None:
    """Write ``B^T d B`` of a block's tiles into ``out (T, n^2, C)``."""
    strip = ops.padded(x, tiling.input_padding, block, tiling.inputs)
    tiles = ops.flat(ops.windows(strip, block.windows(tiling.inputs)), out.shape)
    ops.matmul(matrix, tiles, out)


def input_tiles_of_samples(x: Array, samples: slice, tiling: Tiling, matrix: Array, ops: Operations) -> Array:
    """``B^T d B`` of all tiles of these samples, by all workers: ``(T, n^2, C)``."""
    blocks = tiling.blocks(samples.start, samples.stop - samples.start)
    count = (samples.stop - samples.start) * prod(tiling.grid)
    inputs = ops.workspace("input tiles", (count, tiling.points, tiling.problem.channels), x)

    def work(i: int) -> None:
        out = inputs[tiling.place(blocks[i], samples.start), ...]
        write_input_tiles(x, blocks[i], tiling, matrix, out, ops)

    ops.parallel(len(blocks), work)
    return inputs


def write_dy_tiles(dy: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, ops: Operations) -> None:
    """Write ``A dY A^T`` of a block's tiles into ``out (T, n^2, F)``."""
    strip = ops.padded(dy, tiling.output_padding, block, tiling.outputs)
    tiles = ops.flat(
        ops.windows(strip, block.windows(tiling.outputs)), (out.shape[0], tiling.m * tiling.m, out.shape[2])
    )
    ops.matmul(matrix, tiles, out)


def write_outputs(tiles: Array, y: Array, block: Block, filters: slice, tiling: Tiling, xp: Namespace) -> None:
    """Write ``tiles (T, m^2, F)`` side by side into the block's part of ``y``, for these filters."""
    m, (_, columns) = tiling.m, tiling.grid
    rows = block.rows.stop - block.rows.start
    split = xp.reshape(tiles, (block.count, rows, columns, m, m, tiles.shape[-1]))
    plane = xp.permute_dims(split, (0, 1, 3, 2, 4, 5))
    if y.ndim == plane.ndim:
        y[block.samples, block.rows, ..., filters] = plane
        return
    height, width = tiling.problem.windows.count
    last = min(block.rows.stop * m, height)
    plane = xp.reshape(plane, (block.count, rows * m, columns * m, tiles.shape[-1]))
    y[block.samples, block.rows.start * m : last, :, filters] = plane[:, : last - block.rows.start * m, :width, :]


def kernel_cells(weight: Array, problem: Problem, filters: slice, axes: tuple[int, int, int], ops: Operations) -> Array:
    """The weight of some filters as ``(9, C, F)`` with its axes permuted by ``axes``.

    The cells of a rotated weight stay in their order: the caller flips the transform instead.
    """
    cells = ops.xp.reshape(weight, (*weight.shape[:2], CELLS))
    if problem.rotated:
        ordered = ops.xp.permute_dims(cells[:, filters, :], (2, 0, 1))
    else:
        ordered = ops.xp.permute_dims(cells[filters, ...], (2, 1, 0))
    ordered = ops.xp.permute_dims(ordered, axes)
    copy = ops.workspace("kernel", tuple(ordered.shape), weight)
    copy[...] = ordered
    return copy
