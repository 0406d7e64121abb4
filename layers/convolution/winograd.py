"""Convolution with 3x3 kernels by Winograd's minimal filtering: fewer products, in tiles.

``m x m`` outputs of a 3x3 kernel read ``n x n`` inputs, ``n = m + 2``, and take ``n^2`` products a pair of channels
where the definition takes ``9 m^2``: 36 for 144 with ``m = 4``. For a tile ``d`` of the input and a kernel ``g``::

    Y = A^T [ (G g G^T) * (B^T d B) ] A              summed over channels between the brackets, for each of n^2 points

The transforms are polynomial evaluation at ``n - 1`` numbers and infinity, and interpolation. Each is one small matrix
product a tile with the Kronecker product of its two sides, ``n^2 x n^2``, so that the points can be any numbers:
those below make the rounding error small, while whole numbers would make the transforms cheap by hand.

The error is larger than that of sums of products (the tolerance table has both), a number of the input reaches all
outputs of its tile, so that an infinity becomes NaN, and so ``precision="direct"`` and exact numerics do without.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016; B. Barabasz et al., "Error
analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020, for the choice of points.
"""

from dataclasses import dataclass
from functools import cache
from math import prod

from array_api_compat import device

from ...backends.blocks import Block, cut, even_slices
from ...backends.primitives import LANES, Primitives, in_order
from ...backends.types import Array, Namespace
from ...backends.windows import Windows
from .problem import Problem

KERNEL = 3
# Numbers at which polynomials are evaluated, beside infinity, for tiles of m outputs.
POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, 0.6, -0.6, 1.5, -1.5),
    5: (0.331, -0.331, 0.79, -0.79, 1.669, -1.669),
}

# Bytes of transformed weights from which workers share the points and not the tiles: each of them would go through all
# of the weights otherwise.
LARGE = 3 << 20
# Bytes of transformed tiles of input and output that are held at a time where workers share the points.
HELD = 16 << 20
# Bytes of transformed tiles of input and output that a worker holds at a time.
TILES = 2 << 20
# What the transform of the weights costs, in tiles.
WEIGHT_TILES = 30
# A product of three sizes below this takes the short way through OpenBLAS, which packs nothing.
SHORT = 1_000_000


@dataclass(frozen=True)
class Tiling:
    """How outputs are cut into tiles of ``m x m``."""

    problem: Problem
    m: int

    @property
    def points(self) -> int:
        """``n^2``: products a tile and pair of channels."""
        return (self.m + KERNEL - 1) ** 2

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""
        rows, columns = self.problem.windows.count
        return -(-rows // self.m), -(-columns // self.m)

    @property
    def inputs(self) -> Windows:
        """Where tiles of the input lie in it, padded to `input_padding`."""
        n = self.m + KERNEL - 1
        return Windows((n, n), (self.m, self.m), (1, 1), self.grid)

    @property
    def input_padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros around the input, for the last tiles too."""
        return tuple(
            (before, (tiles - 1) * self.m + self.m + KERNEL - 1 - before - n)
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
    def is_large(self) -> bool:
        """Whether the transformed weights are."""
        return 4 * self.points * self.problem.channels * self.problem.features > LARGE

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
        """Samples whose tiles are held at a time where workers share the points."""
        rows, columns = self.grid
        size = 4 * self.points * rows * columns * (self.problem.channels + self.problem.features)
        return even_slices(self.problem.samples, -(-self.problem.samples // max(1, HELD // size)))

    def tiles(self, block: Block) -> int:
        """Number of tiles in a block."""
        return block.count * (block.rows.stop - block.rows.start) * self.grid[1]

    def place(self, block: Block, first: int) -> slice:
        """Where a block's tiles stand among those of all samples from ``first`` on."""
        rows, columns = self.grid
        start = ((block.samples.start - first) * rows + block.rows.start) * columns
        return slice(start, start + self.tiles(block))


class Winograd:
    """Convolution with a kernel of 3x3 at stride 1, in tiles of ``m x m`` outputs."""

    def __init__(self, m: int) -> None:
        self.m = m

    def cost(self, problem: Problem) -> float:
        """About how many multiplications a forward takes; the weight's transform is counted for what it costs."""
        tiling = Tiling(problem, self.m)
        tiles = problem.samples * prod(tiling.grid)
        c, f, p = problem.channels, problem.features, tiling.points
        return p * (c * f * (tiles + WEIGHT_TILES) + tiles * (p * c + self.m**2 * f))

    def forward(self, x: Array, weight: Array, bias: Array | None, problem: Problem, engine: Primitives) -> Array:
        """``y (N, *O, F)``."""
        tiling = Tiling(problem, self.m)
        xp, n = engine.xp, problem.samples
        rows, columns = tiling.grid
        fits = not any(after for _, after in tiling.output_padding)
        shape = (n, rows, self.m, columns, self.m, problem.features) if fits else problem.y_shape
        y = xp.empty(shape, dtype=x.dtype, device=device(x))
        kernel = _by_channel(weight, problem, xp)
        sides = _matrices(self.m, xp, x)
        evaluate = xp.flip(sides.kernel, axis=1) if problem.rotated else sides.kernel

        def finish(products: Array, block: Block) -> None:
            tiles = engine.workspace("outputs", (products.shape[0], self.m**2, problem.features), x)
            engine.matmul(sides.output, products, tiles)
            if bias is not None:
                tiles += bias
            _put_tiles(tiles, y, block, tiling, xp)

        if tiling.is_large:
            chunks = even_slices(tiling.points, self.m + KERNEL - 1)
            for held in tiling.held():
                blocks = tiling.blocks(held.start, held.stop - held.start)
                count = (held.stop - held.start) * rows * columns
                inputs = engine.workspace("all inputs", (count, tiling.points, problem.channels), x)
                products = engine.workspace("all products", (count, tiling.points, problem.features), x)

                def transform(i: int, blocks=blocks, inputs=inputs, first=held.start) -> None:
                    _input_tiles(x, blocks[i], tiling, sides.input, inputs[tiling.place(blocks[i], first), ...], engine)

                def multiply(i: int, inputs=inputs, products=products) -> None:
                    part = evaluate[chunks[i], :]
                    points = engine.workspace("points", (problem.channels, part.shape[0], problem.features), x)
                    engine.matmul(part, kernel, points)
                    _multiply(inputs[:, chunks[i], :], points, products[:, chunks[i], :], engine)

                def output(i: int, blocks=blocks, products=products, first=held.start) -> None:
                    finish(products[tiling.place(blocks[i], first), ...], blocks[i])

                engine.parallel(len(blocks), transform)
                engine.parallel(len(chunks), multiply)
                engine.parallel(len(blocks), output)
        else:
            points = engine.matmul(evaluate, kernel)
            blocks = tiling.blocks(0, n)

            def work(i: int) -> None:
                tiles = tiling.tiles(blocks[i])
                inputs = engine.workspace("inputs", (tiles, tiling.points, problem.channels), x)
                _input_tiles(x, blocks[i], tiling, sides.input, inputs, engine)
                products = engine.workspace("products", (tiles, tiling.points, problem.features), x)
                _multiply(inputs, points, products, engine)
                finish(products, blocks[i])

            engine.parallel(len(blocks), work)
        return xp.reshape(y, problem.y_shape)

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, engine: Primitives) -> Array:
        """``dweight (F, C, 3, 3)``."""
        tiling = Tiling(problem, self.m)
        xp, n = engine.xp, problem.samples
        rows, columns = tiling.grid
        sides = _matrices(self.m, xp, x)
        back, spread = xp.matrix_transpose(sides.kernel), xp.matrix_transpose(sides.output)
        shape = (problem.features, tiling.points, problem.channels)

        if tiling.is_large:
            sums = engine.workspace("all sums", shape, x)
            chunks = even_slices(tiling.points, self.m + KERNEL - 1)
            for held in tiling.held():
                blocks = tiling.blocks(held.start, held.stop - held.start)
                count = (held.stop - held.start) * rows * columns
                inputs = engine.workspace("all inputs", (count, tiling.points, problem.channels), x)
                upstream = engine.workspace("all products", (count, tiling.points, problem.features), x)

                def transform(i: int, blocks=blocks, inputs=inputs, upstream=upstream, first=held.start) -> None:
                    place = tiling.place(blocks[i], first)
                    _input_tiles(x, blocks[i], tiling, sides.input, inputs[place, ...], engine)
                    _output_tiles(dy, blocks[i], tiling, spread, upstream[place, ...], engine)

                def multiply(i: int, inputs=inputs, upstream=upstream, first=held.start) -> None:
                    c = chunks[i]
                    _add_outer(upstream[:, c, :], inputs[:, c, :], sums[:, c, :], first == 0, engine)

                engine.parallel(len(blocks), transform)
                engine.parallel(len(chunks), multiply)
            dw = xp.empty((problem.features, KERNEL**2, problem.channels), dtype=x.dtype, device=device(x))
            filters = even_slices(problem.features, -(-problem.features // 32))

            def gather(i: int) -> None:
                engine.matmul(back, sums[filters[i], ...], dw[filters[i], ...])

            engine.parallel(len(filters), gather)
        else:
            blocks = tiling.blocks(0, n)
            lanes = even_slices(len(blocks), min(len(blocks), LANES))
            parts = xp.empty((len(lanes), shape[0], KERNEL**2, shape[2]), dtype=x.dtype, device=device(x))

            def work(lane: int) -> None:
                sums = engine.workspace("sums", shape, x)
                for j in range(lanes[lane].start, lanes[lane].stop):
                    tiles = tiling.tiles(blocks[j])
                    inputs = engine.workspace("inputs", (tiles, tiling.points, problem.channels), x)
                    upstream = engine.workspace("products", (tiles, tiling.points, problem.features), x)
                    _input_tiles(x, blocks[j], tiling, sides.input, inputs, engine)
                    _output_tiles(dy, blocks[j], tiling, spread, upstream, engine)
                    _add_outer(upstream, inputs, sums, j == lanes[lane].start, engine)
                engine.matmul(back, sums, parts[lane, ...])

            engine.parallel(len(lanes), work)
            dw = in_order(parts)
        return xp.reshape(xp.permute_dims(dw, (0, 2, 1)), (problem.features, problem.channels, KERNEL, KERNEL))


def _by_channel(weight: Array, problem: Problem, xp: Namespace) -> Array:
    """The weight as ``(C, 9, F)``; of a rotated one the cells are in their old order."""
    cells = xp.reshape(weight, (*weight.shape[:2], KERNEL**2))
    return xp.asarray(xp.permute_dims(cells, (0, 2, 1) if problem.rotated else (1, 2, 0)), copy=True)


def _input_tiles(x: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, engine: Primitives) -> None:
    """``B^T d B`` of a block's tiles."""
    strip = engine.padded(x, tiling.input_padding, block, tiling.inputs)
    tiles = engine.flat(engine.windows(strip, block.windows(tiling.inputs)), out.shape)
    engine.matmul(matrix, tiles, out)


def _output_tiles(dy: Array, block: Block, tiling: Tiling, matrix: Array, out: Array, engine: Primitives) -> None:
    """``A dY A^T`` of a block's tiles."""
    strip = engine.padded(dy, tiling.output_padding, block, tiling.outputs)
    tiles = engine.flat(engine.windows(strip, block.windows(tiling.outputs)), (out.shape[0], tiling.m**2, out.shape[2]))
    engine.matmul(matrix, tiles, out)


def _multiply(inputs: Array, points: Array, out: Array, engine: Primitives) -> None:
    """For each point: tiles times weights, summed over channels."""
    first = engine.xp.permute_dims
    engine.matmul(first(inputs, (1, 0, 2)), first(points, (1, 0, 2)), first(out, (1, 0, 2)))


def _add_outer(upstream: Array, inputs: Array, sums: Array, fresh: bool, engine: Primitives) -> None:
    """For each point: upstream tiles times input tiles, summed over tiles, added to ``sums (F, n^2, C)``."""
    permute = engine.xp.permute_dims
    left, right, target = permute(upstream, (1, 2, 0)), permute(inputs, (1, 0, 2)), permute(sums, (1, 0, 2))
    if fresh:
        engine.matmul(left, right, target)
    else:
        part = engine.workspace("more sums", sums.shape, sums)
        engine.matmul(left, right, permute(part, (1, 0, 2)))
        sums += part


def _put_tiles(tiles: Array, y: Array, block: Block, tiling: Tiling, xp: Namespace) -> None:
    """Lay ``tiles (T, m^2, F)`` side by side into the block's part of ``y``."""
    m, (_, columns) = tiling.m, tiling.grid
    rows = block.rows.stop - block.rows.start
    split = xp.reshape(tiles, (block.count, rows, columns, m, m, tiles.shape[-1]))
    laid = xp.permute_dims(split, (0, 1, 3, 2, 4, 5))
    if y.ndim == laid.ndim:
        y[block.samples, block.rows, ...] = laid
        return
    height, width = tiling.problem.windows.count
    last = min(block.rows.stop * m, height)
    plane = xp.reshape(laid, (block.count, rows * m, columns * m, tiles.shape[-1]))
    y[block.samples, block.rows.start * m : last, ...] = plane[:, : last - block.rows.start * m, :width, :]


@dataclass(frozen=True)
class Sides:
    """The transforms, each the Kronecker product of its two sides: of inputs ``(n^2, n^2)``, of kernels ``(n^2, 9)``
    and of outputs ``(m^2, n^2)``."""

    input: Array
    kernel: Array
    output: Array


def _matrices(m: int, xp: Namespace, like: Array) -> Sides:
    made = (kronecker(matrix) for matrix in transforms(POINTS[m], m))
    return Sides(*(xp.asarray(each, dtype=like.dtype, device=device(like)) for each in made))


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
        kernels.append(tuple(point**k / scale for k in range(KERNEL)))
    inputs.append(_coefficients(points, n))
    kernels.append((0.0,) * (KERNEL - 1) + (1.0,))
    outputs = tuple((*(point**i for point in points), float(i == m - 1)) for i in range(m))
    return tuple(inputs), tuple(kernels), outputs


def _coefficients(roots: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Of the polynomial with these roots, the constant first, ``n`` of them."""
    row = [1.0]
    for root in roots:
        row = [a - root * b for a, b in zip([0.0, *row], [*row, 0.0], strict=True)]
    return (*row, *(0.0,) * (n - len(row)))


@cache
def kronecker(a: Matrix) -> Matrix:
    """The Kronecker product of a matrix with itself."""
    return tuple(tuple(x * y for x in row for y in other) for row in a for other in a)
