r"""Convolution with 3x3 kernels by Winograd's minimal filtering: fewer products, in tiles.

``m x m`` outputs of a 3x3 kernel read ``n x n`` inputs, ``n = m + 2``, and take ``n^2`` products a pair of channels
where the definition takes ``9 m^2``: 36 for 144 with ``m = 4``. For a tile ``d`` of the input and a kernel ``g``::

    Y = A^T [ (G g G^T) * (B^T d B) ] A              summed over channels between the brackets, for each of n^2 points

The transforms are polynomial evaluation at ``n - 1`` numbers and infinity, and interpolation. Each is one small matrix
product a tile with the Kronecker product of its two sides, ``n^2 x n^2``, so that the points can be any numbers:
those below make the rounding error small, while whole numbers would make the transforms cheap by hand.

The error is larger than that of sums of products. In float32 against float64, with normal inputs and weights (20 x 20
cells; batch 8, of 256 channels 4), relative to the root mean square of the result:

==========  ===============  =================  ===============  =================
\           64 channels      64 channels        256 channels     256 channels
\           forward          weight's gradient  forward          weight's gradient
\           rms      max     rms      max       rms      max     rms      max
==========  ===============  =================  ===============  =================
columns     3.0e-7   2.4e-6  3.5e-7   2.1e-6    3.6e-7   2.5e-6  3.5e-7   2.7e-6
``m = 2``   2.7e-7   1.6e-6  4.5e-7   2.4e-6    5.0e-7   3.9e-6  6.1e-7   4.9e-6
``m = 4``   8.4e-7   8.2e-6  1.0e-6   6.5e-6    1.5e-6   1.7e-5  1.0e-6   9.6e-6
``m = 5``   1.9e-6   1.9e-5  2.0e-6   1.2e-5    3.2e-6   3.9e-5  2.1e-6   1.8e-5
==========  ===============  =================  ===============  =================

A number of the input reaches all outputs of its tile, so that an infinity becomes NaN. So ``precision="direct"`` and
exact numerics do without.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016; B. Barabasz et al., "Error
analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020, for the choice of points.
"""

from dataclasses import dataclass
from functools import cache, partial
from math import prod

from array_api_compat import device

from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.contractions.windows import Windows
from ...backends.execution.blocks import Block, cut, even_slices
from ...backends.operations import Operations
from ...common.types import Array, Namespace, dtype_name
from .problem import Problem

KERNEL = 3
CELLS = KERNEL * KERNEL
# Numbers at which polynomials are evaluated, beside infinity, for tiles of m outputs.
POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, 0.6, -0.6, 1.5, -1.5),
    5: (0.331, -0.331, 0.79, -0.79, 1.669, -1.669),
}

# Bytes of transformed weights from which workers share the filters and not the tiles: each of them would go through all
# of the weights otherwise.
LARGE = 3 << 20
# Bytes of transformed tiles of the input that are held at a time where workers share the filters.
HELD = 16 << 20
# Bytes of transformed tiles of input and output that a worker holds at a time.
TILES = 2 << 20
# What the transform of the weights costs, in tiles.
WEIGHT_TILES = 20
# A product of three sizes below this takes the short way through OpenBLAS, which packs nothing.
SHORT = 1_000_000


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
        """``n^2``: products a tile and pair of channels."""
        return self.side * self.side

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""
        rows, columns = self.problem.windows.count
        return -(-rows // self.m), -(-columns // self.m)

    @property
    def inputs(self) -> Windows:
        """Where tiles of the input lie in it, padded to `input_padding`."""
        return Windows((self.side, self.side), (self.m, self.m), (1, 1), self.grid)

    @property
    def input_padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros around the input, for the last tiles too."""
        return tuple(
            (before, (tiles - 1) * self.m + self.side - before - n)
            for n, tiles, (before, _) in zip(self.problem.spatial, self.grid, self.problem.padding, strict=True)
        )

    @property
    def outputs(self) -> Windows:
        """Where tiles of the output lie in it, padded to `output_padding`."""
        return Windows((self.m, self.m), (self.m, self.m), (1, 1), self.grid)

    @property
    def output_padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros after the output, for the last tiles."""
        count = self.problem.windows.count
        return tuple((0, tiles * self.m - n) for n, tiles in zip(count, self.grid, strict=True))

    @property
    def matrices(self) -> tuple["Matrix", "Matrix", "Matrix"]:
        """`transforms` for these tiles."""
        return transforms(POINTS[self.m], self.m)

    @property
    def is_large(self) -> bool:
        """Whether the transformed weights are, or count as large."""
        return self.shares_filters or 4 * self.points * self.problem.channels * self.problem.features > LARGE

    def blocks(self, first: int, samples: int) -> list[Block]:
        """Tiles of some samples in blocks for a worker."""
        most = TILES // (4 * self.points * (self.problem.channels + self.problem.features))
        short = (SHORT - 1) // (self.problem.channels * self.problem.features)
        if short >= 32:
            most = min(most, short)
        rows, columns = self.grid
        blocks = cut(samples, rows, most // columns)
        return [Block(slice(first + b.samples.start, first + b.samples.stop), b.rows) for b in blocks]

    def held(self) -> list[slice]:
        """Samples whose tiles of the input are held at a time where workers share the filters."""
        size = 4 * self.points * prod(self.grid) * self.problem.channels
        return even_slices(self.problem.samples, -(-self.problem.samples // max(1, HELD // size)))

    def held_inputs(self, x: Array, samples: slice, matrix: Array, ops: Operations) -> Array:
        """Tiles of the input of these samples, transformed: ``(T, n^2, C)``."""
        blocks = self.blocks(samples.start, samples.stop - samples.start)
        count = (samples.stop - samples.start) * prod(self.grid)
        inputs = ops.workspace("held inputs", (count, self.points, self.problem.channels), x)

        def work(i: int) -> None:
            _input_tiles(x, blocks[i], self, matrix, inputs[self.place(blocks[i], samples.start), ...], ops)

        ops.parallel(len(blocks), work)
        return inputs

    def filters(self, tiles: int) -> list[slice]:
        """Filters of a worker at a time where workers share them."""
        short = (SHORT - 1) // max(1, tiles * self.problem.channels)
        return even_slices(self.problem.features, -(-self.problem.features // (min(short, 32) if short >= 16 else 64)))

    def tiles(self, block: Block) -> int:
        """Number of tiles in a block."""
        return block.count * int(block.rows.stop - block.rows.start) * self.grid[1]

    def place(self, block: Block, first: int) -> slice:
        """Where a block's tiles stand among those of all samples from ``first`` on."""
        rows, columns = self.grid
        start = ((block.samples.start - first) * rows + block.rows.start) * columns
        return slice(start, start + self.tiles(block))


def serves(problem: Problem) -> bool:
    """Whether tiles compute the problem; where there is no output there is no tile."""
    w = problem.windows
    return (
        problem.precision != "direct"
        and problem.dtype == "float32"
        and problem.groups == 1
        and (w.kernel, w.stride, w.dilation) == ((3, 3), (1, 1), (1, 1))
        and all(w.count)
    )


class Winograd:
    """Convolution with a kernel of 3x3 at stride 1, in tiles of ``m x m`` outputs.

    With ``shares_filters`` workers share the filters, and not the tiles, however small the weight is.
    """

    def __init__(self, m: int, shares_filters: bool = False) -> None:
        self.m, self.shares_filters = m, shares_filters

    def cost(self, problem: Problem) -> float:
        """About how many multiplications a forward takes; the weight's transform is counted for what it costs."""
        tiling = Tiling(problem, self.m)
        tiles = problem.samples * prod(tiling.grid)
        c, f, p = problem.channels, problem.features, tiling.points
        return p * (c * f * (tiles + WEIGHT_TILES) + tiles * (p * c + self.m * self.m * f))

    def forward(self, x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
        """``y (N, *O, F)``."""
        tiling = Tiling(problem, self.m, self.shares_filters)
        prepared = ops.prepare("winograd", tiling, problem.dtype)
        if prepared is not None:
            return prepared.forward(x, weight, bias)
        xp = ops.xp
        rows, columns = tiling.grid
        fits = not any(after for _, after in tiling.output_padding)
        shape = (problem.samples, rows, self.m, columns, self.m, problem.features) if fits else problem.y_shape
        y = xp.empty(shape, dtype=x.dtype, device=device(x))
        sides = _matrices(self.m, ops, x)
        evaluate = xp.flip(sides.kernel, axis=1) if problem.rotated else sides.kernel

        def finish(inputs: Array, points: Array, block: Block, filters: slice) -> None:
            """From tiles of the input to those of the output, for some filters."""
            count, features = inputs.shape[0], points.shape[2]
            products = ops.workspace("products", (count, tiling.points, features), x)
            permute = xp.permute_dims
            ops.matmul(permute(inputs, (1, 0, 2)), points, permute(products, (1, 0, 2)))
            tiles = ops.workspace("outputs", (count, self.m * self.m, features), x)
            ops.matmul(sides.output, products, tiles)
            if bias is not None:
                tiles += bias[filters]
            _put_tiles(tiles, y, block, filters, tiling, xp)

        def share_tiles() -> None:
            kernel = _kernel(weight, problem, slice(0, problem.features), (1, 0, 2), ops)
            points = xp.permute_dims(ops.matmul(evaluate, kernel), (1, 0, 2))
            blocks = tiling.blocks(0, problem.samples)

            def work(i: int) -> None:
                inputs = ops.workspace("inputs", (tiling.tiles(blocks[i]), tiling.points, problem.channels), x)
                _input_tiles(x, blocks[i], tiling, sides.input, inputs, ops)
                finish(inputs, points, blocks[i], slice(0, problem.features))

            ops.parallel(len(blocks), work)

        def share_filters(samples: slice) -> None:
            inputs = tiling.held_inputs(x, samples, sides.input, ops)
            filters = tiling.filters(inputs.shape[0])

            def work(i: int) -> None:
                count = filters[i].stop - filters[i].start
                kernel = _kernel(weight, problem, filters[i], (0, 1, 2), ops)
                points = ops.workspace("points", (tiling.points, problem.channels * count), x)
                ops.matmul(evaluate, xp.reshape(kernel, (CELLS, problem.channels * count)), points)
                points = xp.reshape(points, (tiling.points, problem.channels, count))
                finish(inputs, points, Block(samples, slice(0, rows)), filters[i])

            ops.parallel(len(filters), work)

        if tiling.is_large:
            for samples in tiling.held():
                share_filters(samples)
        else:
            share_tiles()
        return xp.reshape(y, problem.y_shape)

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C, 3, 3)``."""
        tiling = Tiling(problem, self.m, self.shares_filters)
        prepared = ops.prepare("winograd", tiling, problem.dtype)
        if prepared is not None:
            return prepared.weight_gradient(x, dy)
        xp = ops.xp
        sides = _matrices(self.m, ops, x)
        back, spread = xp.matrix_transpose(sides.kernel), xp.matrix_transpose(sides.output)

        def outer(inputs: Array, block: Block, filters: slice, name: str) -> Array:
            """For each point the products of tiles of ``dy`` and of the input, summed over tiles: ``(F, n^2, C)``."""
            features = filters.stop - filters.start
            upstream = ops.workspace("products", (inputs.shape[0], tiling.points, features), x)
            _output_tiles(dy[..., filters], block, tiling, spread, upstream, ops)
            sums = ops.workspace(name, (features, tiling.points, problem.channels), x)
            permute = xp.permute_dims
            ops.matmul(permute(upstream, (1, 2, 0)), permute(inputs, (1, 0, 2)), permute(sums, (1, 0, 2)))
            return sums

        def share_tiles() -> Array:
            blocks = tiling.blocks(0, problem.samples)
            lanes = even_slices(len(blocks), min(len(blocks), PARTIAL_SUMS))
            shape = (len(lanes), problem.features, CELLS, problem.channels)
            parts = xp.empty(shape, dtype=x.dtype, device=device(x))

            def work(lane: int) -> None:
                total = None
                for block in blocks[lanes[lane]]:
                    inputs = ops.workspace("inputs", (tiling.tiles(block), tiling.points, problem.channels), x)
                    _input_tiles(x, block, tiling, sides.input, inputs, ops)
                    sums = outer(inputs, block, slice(0, problem.features), "more" if total is not None else "sums")
                    if total is None:
                        total = sums
                    else:
                        total += sums
                ops.matmul(back, total, parts[lane, ...])

            ops.parallel(len(lanes), work)
            return sum_in_order(parts)

        def share_filters(samples: slice, dw: Array) -> None:
            inputs = tiling.held_inputs(x, samples, sides.input, ops)
            filters = tiling.filters(inputs.shape[0])

            def work(i: int) -> None:
                part = dw[filters[i], ...]
                sums = outer(inputs, Block(samples, slice(0, tiling.grid[0])), filters[i], "sums")
                if samples.start == 0:
                    ops.matmul(back, sums, part)
                else:
                    part += ops.matmul(back, sums, ops.workspace("part", part.shape, part))

            ops.parallel(len(filters), work)

        if tiling.is_large:
            shape = (problem.features, CELLS, problem.channels)
            dw = xp.empty(shape, dtype=x.dtype, device=device(x))
            for samples in tiling.held():
                share_filters(samples, dw)
        else:
            dw = share_tiles()
        return xp.reshape(xp.permute_dims(dw, (0, 2, 1)), (problem.features, problem.channels, KERNEL, KERNEL))


def _kernel(weight: Array, problem: Problem, filters: slice, axes: tuple[int, int, int], ops: Operations) -> Array:
    """The weight of some filters as ``(9, C, F)``, or these axes of it; of a rotated one the cells stay as they are."""
    cells = ops.xp.reshape(weight, (*weight.shape[:2], CELLS))
    if problem.rotated:
        laid = ops.xp.permute_dims(cells[:, filters, :], (2, 0, 1))
    else:
        laid = ops.xp.permute_dims(cells[filters, ...], (2, 1, 0))
    laid = ops.xp.permute_dims(laid, axes)
    copy = ops.workspace("kernel", tuple(laid.shape), weight)
    copy[...] = laid
    return copy


def _input_tiles(x: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, ops: Operations) -> None:
    """``B^T d B`` of a block's tiles."""
    strip = ops.padded(x, tiling.input_padding, block, tiling.inputs)
    tiles = ops.flat(ops.windows(strip, block.windows(tiling.inputs)), out.shape)
    ops.matmul(matrix, tiles, out)


def _output_tiles(dy: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, ops: Operations) -> None:
    """``A dY A^T`` of a block's tiles."""
    strip = ops.padded(dy, tiling.output_padding, block, tiling.outputs)
    tiles = ops.flat(
        ops.windows(strip, block.windows(tiling.outputs)), (out.shape[0], tiling.m * tiling.m, out.shape[2])
    )
    ops.matmul(matrix, tiles, out)


def _put_tiles(tiles: Array, y: Array, block: Block, filters: slice, tiling: Tiling, xp: Namespace) -> None:
    """Lay ``tiles (T, m^2, F)`` side by side into the block's part of ``y``, for these filters."""
    m, (_, columns) = tiling.m, tiling.grid
    rows = block.rows.stop - block.rows.start
    split = xp.reshape(tiles, (block.count, rows, columns, m, m, tiles.shape[-1]))
    laid = xp.permute_dims(split, (0, 1, 3, 2, 4, 5))
    if y.ndim == laid.ndim:
        y[block.samples, block.rows, ..., filters] = laid
        return
    height, width = tiling.problem.windows.count
    last = min(block.rows.stop * m, height)
    plane = xp.reshape(laid, (block.count, rows * m, columns * m, tiles.shape[-1]))
    y[block.samples, block.rows.start * m : last, :, filters] = plane[:, : last - block.rows.start * m, :width, :]


@dataclass(frozen=True)
class Sides:
    """The transforms, each the Kronecker product of its two sides: of inputs ``(n^2, n^2)``, of kernels ``(n^2, 9)``
    and of outputs ``(m^2, n^2)``."""

    input: Array
    kernel: Array
    output: Array


def _matrices(m: int, ops: Operations, like: Array) -> Sides:
    xp = ops.xp
    made = tuple(kronecker(matrix) for matrix in transforms(POINTS[m], m))

    def laid(side: int) -> Array:
        return xp.asarray(made[side], dtype=like.dtype, device=device(like))

    return Sides(*(ops.constant(partial(laid, i), like, POINTS[m], m, i, dtype_name(like.dtype)) for i in range(3)))


Matrix = tuple[tuple[float, ...], ...]


@cache
def transforms(points: tuple[float, ...], m: int) -> tuple[Matrix, Matrix, Matrix]:
    """``B^T (n, n)``, ``G (n, 3)`` and ``A^T (m, n)`` for ``n - 1`` points and infinity.

    Row ``j`` of ``B^T`` holds the coefficients of the product of ``x - p_l`` over all ``l`` but ``j``, and the last one
    those over all; ``G`` evaluates a kernel's polynomial, over the product of ``p_j - p_l``; ``A^T`` has the powers of
    the points.
    """
    n = m + KERNEL - 1
    inputs, kernels = [], []
    for j, point in enumerate(points):
        others = points[:j] + points[j + 1 :]
        scale = prod(point - other for other in others)
        inputs.append(_coefficients(others, n))
        kernels.append(tuple(prod((point,) * k) / scale for k in range(KERNEL)))
    inputs.append(_coefficients(points, n))
    kernels.append((0.0,) * (KERNEL - 1) + (1.0,))
    outputs = tuple((*(prod((point,) * i) for point in points), float(i == m - 1)) for i in range(m))
    return tuple(inputs), tuple(kernels), outputs


def _coefficients(roots: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Of the polynomial with these roots, the constant first, ``n`` of them; exact if the roots are."""
    row: list[float] = [1]
    for root in roots:
        row = [a - root * b for a, b in zip([0, *row], [*row, 0], strict=True)]
    return (*row, *(0,) * (n - len(row)))


@cache
def kronecker(a: Matrix) -> Matrix:
    """The Kronecker product of a matrix with itself."""
    return tuple(tuple(x * y for x in row for y in other) for row in a for other in a)
