r"""Convolution with 3x3 kernels by Winograd's minimal filtering: fewer products, in tiles.

``m x m`` outputs of a 3x3 kernel read ``n x n`` inputs, ``n = m + 2``. They need ``n^2`` products for each pair of
channels, where the definition needs ``9 m^2``: 36 instead of 144 with ``m = 4``. For a tile ``d`` of the input and a
kernel ``g``::

    Y = A^T [ (G g G^T) * (B^T d B) ] A              summed over channels between the brackets, for each of n^2 points

The transforms are polynomial evaluation at ``n - 1`` numbers and infinity, and interpolation. Each is one product of a
tile with the Kronecker product of its matrix with itself, such as ``n^2 x n^2``, so that the points can be any numbers:
those of `winograd_transforms` make the rounding error small, where whole numbers would save multiplications.

The error is larger than that of sums of products. In float32 against float64, with normally distributed inputs and
weights (20 x 20 cells; batch 8, and 4 for 256 channels), relative to the root mean square of the result:

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

A number of the input reaches all outputs of its tile, so that an infinity becomes NaN. So ``algorithms="direct"`` and
exact numerics do without.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016; B. Barabasz et al., "Error
analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020, for the choice of points.
"""

from math import prod

from array_api_compat import device

from ...backends.contractions.contractions import PARTIAL_SUMS, sum_in_order
from ...backends.execution.blocks import Block, even_slices
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from .prepared import forward as forward_by
from .problem import Problem
from .winograd_tiles import (
    Tiling,
    input_tiles_of_samples,
    kernel_cells,
    write_dy_tiles,
    write_input_tiles,
    write_outputs,
)
from .winograd_transforms import CELLS, KERNEL, plane_transforms

# Cost of the transform of the weights, in tiles.
WEIGHT_TRANSFORM_TILES = 20
# Cost of compiled transforms of a tile of one channel of the input, and of the output, in products for each point; and
# of the transform of a kernel, in products, which is mostly spent on reading it. A product takes 10 ps on a core.
COMPILED_INPUT, COMPILED_OUTPUT, COMPILED_KERNEL = 25, 13, 720


def serves(problem: Problem) -> bool:
    """Whether tiles compute the problem; where there is no output there is no tile."""
    w = problem.windows
    return (
        problem.algorithms != "direct"
        and problem.dtype == "float32"
        and problem.groups == 1
        and (w.kernel, w.stride, w.dilation) == ((3, 3), (1, 1), (1, 1))
        and all(w.count)
    )


class Winograd:
    """Convolution with a kernel of 3x3 at stride 1, in tiles of ``m x m`` outputs.

    Workers share the tiles where the weight is small, and the filters where it is large or with ``shares_filters``.
    """

    def __init__(self, m: int, shares_filters: bool = False) -> None:
        self.m, self.shares_filters = m, shares_filters

    def cost(self, problem: Problem) -> float:
        """Approximate multiplications of a forward, with the weight's transform by its measured time."""
        tiling = Tiling(problem, self.m)
        tiles = problem.samples * prod(tiling.grid)
        c, f, p = problem.channels, problem.features, tiling.points
        return p * (c * f * (tiles + WEIGHT_TRANSFORM_TILES) + tiles * (p * c + self.m * self.m * f))

    def compiled_cost(self, problem: Problem) -> float:
        """`cost` where the transforms are compiled for a CPU.

        Without the weight's transform, as in evaluation, it is the same: where there are few tiles, reading the
        transformed weights from memory takes as long.
        """
        tiling = Tiling(problem, self.m)
        tiles, c, f = problem.samples * prod(tiling.grid), problem.channels, problem.features
        of_tile = tiling.points * (c * f + COMPILED_INPUT * c + COMPILED_OUTPUT * f)
        return tiles * of_tile + COMPILED_KERNEL * c * f

    def is_compiled(self, problem: Problem, ops: Operations) -> bool:
        """Whether a compiled engine computes the problem."""
        return ops.prepare("winograd", Tiling(problem, self.m, self.shares_filters), problem.dtype) is not None

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        problem: Problem,
        ops: Operations,
        keep: Keep = compute,
        relu: bool = False,
    ) -> Array:
        """``y (N, *O, F)``."""
        tiling = Tiling(problem, self.m, self.shares_filters)
        prepared = ops.prepare("winograd", tiling, problem.dtype)
        if prepared is not None:
            key = ("Winograd", self.m, self.shares_filters)
            return forward_by(prepared, key, x, weight, bias, problem, keep, relu)
        xp = ops.xp
        rows, columns = tiling.grid
        tiles_fit = not any(after for _, after in tiling.output_padding)
        shape = (problem.samples, rows, self.m, columns, self.m, problem.features) if tiles_fit else problem.y_shape
        y = xp.empty(shape, dtype=x.dtype, device=device(x))
        transforms = plane_transforms(self.m, ops, x)
        of_kernel = xp.flip(transforms.kernel, axis=1) if problem.rotated else transforms.kernel

        def multiply(inputs: Array, points: Array, block: Block, filters: slice) -> None:
            """From transformed tiles of the input to outputs in ``y``, for some filters."""
            count, features = inputs.shape[0], points.shape[2]
            products = ops.workspace("products", (count, tiling.points, features), x)
            permute = xp.permute_dims
            ops.matmul(permute(inputs, (1, 0, 2)), points, permute(products, (1, 0, 2)))
            tiles = ops.workspace("outputs", (count, self.m * self.m, features), x)
            ops.matmul(transforms.output, products, tiles)
            if bias is not None:
                tiles += bias[filters]
            write_outputs(tiles, y, block, filters, tiling, xp)

        def transformed() -> Array:
            kernel = kernel_cells(weight, problem, slice(0, problem.features), (1, 0, 2), ops)
            return xp.permute_dims(ops.matmul(of_kernel, kernel), (1, 0, 2))

        def share_tiles() -> None:
            points = keep(("Winograd", self.m, problem.rotated), transformed)
            blocks = tiling.blocks(0, problem.samples)

            def work(i: int) -> None:
                inputs = ops.workspace("inputs", (tiling.tiles(blocks[i]), tiling.points, problem.channels), x)
                write_input_tiles(x, blocks[i], tiling, transforms.input, inputs, ops)
                multiply(inputs, points, blocks[i], slice(0, problem.features))

            ops.parallel(len(blocks), work)

        def share_filters(samples: slice) -> None:
            inputs = input_tiles_of_samples(x, samples, tiling, transforms.input, ops)
            filters = tiling.filters(inputs.shape[0])

            def work(i: int) -> None:
                count = filters[i].stop - filters[i].start
                kernel = kernel_cells(weight, problem, filters[i], (0, 1, 2), ops)
                points = ops.workspace("points", (tiling.points, problem.channels * count), x)
                ops.matmul(of_kernel, xp.reshape(kernel, (CELLS, problem.channels * count)), points)
                points = xp.reshape(points, (tiling.points, problem.channels, count))
                multiply(inputs, points, Block(samples, slice(0, rows)), filters[i])

            ops.parallel(len(filters), work)

        if tiling.is_large:
            for samples in tiling.sample_groups():
                share_filters(samples)
        else:
            share_tiles()
        y = xp.reshape(y, problem.y_shape)
        return ops.relu_in_place(y) if relu else y

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C, 3, 3)``: the adjoint of `forward` in the kernel.

        With ``d`` and ``dY`` the tiles of the input and of ``dy``::

            dg = G^T [ sum over tiles of  (B^T d B) * (A dY A^T) ] G
        """
        tiling = Tiling(problem, self.m, self.shares_filters)
        prepared = ops.prepare("winograd", tiling, problem.dtype)
        if prepared is not None:
            return prepared.weight_gradient(x, dy)
        xp = ops.xp
        transforms = plane_transforms(self.m, ops, x)
        of_sums, of_dy = xp.matrix_transpose(transforms.kernel), xp.matrix_transpose(transforms.output)

        def sum_products(inputs: Array, block: Block, filters: slice, name: str) -> Array:
            """For each point the products of tiles of ``dy`` and of the input, summed over tiles: ``(F, n^2, C)``."""
            features = filters.stop - filters.start
            upstream = ops.workspace("products", (inputs.shape[0], tiling.points, features), x)
            write_dy_tiles(dy[..., filters], block, tiling, of_dy, upstream, ops)
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
                    write_input_tiles(x, block, tiling, transforms.input, inputs, ops)
                    name = "more" if total is not None else "sums"
                    sums = sum_products(inputs, block, slice(0, problem.features), name)
                    if total is None:
                        total = sums
                    else:
                        total += sums
                ops.matmul(of_sums, total, parts[lane, ...])

            ops.parallel(len(lanes), work)
            return sum_in_order(parts)

        def share_filters(samples: slice, dw: Array) -> None:
            inputs = input_tiles_of_samples(x, samples, tiling, transforms.input, ops)
            filters = tiling.filters(inputs.shape[0])

            def work(i: int) -> None:
                part = dw[filters[i], ...]
                sums = sum_products(inputs, Block(samples, slice(0, tiling.grid[0])), filters[i], "sums")
                if samples.start == 0:
                    ops.matmul(of_sums, sums, part)
                else:
                    part += ops.matmul(of_sums, sums, ops.workspace("part", part.shape, part))

            ops.parallel(len(filters), work)

        if tiling.is_large:
            shape = (problem.features, CELLS, problem.channels)
            dw = xp.empty(shape, dtype=x.dtype, device=device(x))
            for samples in tiling.sample_groups():
                share_filters(samples, dw)
        else:
            dw = share_tiles()
        return xp.reshape(xp.permute_dims(dw, (0, 2, 1)), (problem.features, problem.channels, KERNEL, KERNEL))
