"""Convolution by columns (im2col) and matrix products: how the batch is cut, and the calls of the jobs.

The jobs are in `column_jobs` and `column_adjoints`.

Source: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006.
"""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .blas import gemm_address
from .bound import Bound
from .column_adjoints import correlate_lanes, correlate_parts, fold_columns, multiply_and_fold
from .column_jobs import PART_FEATURES, cut_and_multiply, cut_columns, multiply
from .compiler import contiguous
from .convolution_layouts import laid, matrix_of, pack
from .convolution_sizes import ConvolutionProblem, Sizes, weight_strides
from .lane_sums import add_lanes
from .pool import perform

# Windows of a block, whose columns stay in a cache.
ROWS = 256
# OpenBLAS copies ("packs") the factors of a product with this many multiplications or more: below, fewer rows are
# faster, but not fewer than `LEAST_ROWS`.
UNPACKED, LEAST_ROWS = 1_000_000, 64
# Blocks of windows below which one job cuts the columns, of at most `SHARED_BYTES`, and another shares the products.
FEW_BLOCKS, SHARED_BYTES = 16, 1 << 24
# Bytes of the columns of an item in the gradient of the input.
FOLD_BYTES = 1 << 20
# Most sums that are computed side by side in the gradient of the weight, and most numbers of all of them. A larger
# weight is cut in parts of about `PART_DEPTH` rows, each computed by one item.
LANES, LANES_SIZE, PART_DEPTH = 16, 1 << 20, 256
# Numbers of a weight's gradient that an item adds up.
SUM_SIZE = 1 << 12


class Columns:
    """Forward and both gradients of a convolution by columns."""

    def __init__(self, problem: ConvolutionProblem, sizes: Sizes, dtype: str, blas: int) -> None:
        self.problem, self.sizes, self.dtype, self.blas = problem, sizes, dtype, blas
        self.windows, self.depth = sizes.samples * sizes.windows_of_sample, sizes.depth
        self.filters, self.within = sizes.features // sizes.groups, sizes.channels // sizes.groups
        self.itemsize = np.dtype(dtype).itemsize
        unpacked = (UNPACKED - 1) // (self.depth * self.filters)
        self.rows = min(ROWS, unpacked) if unpacked >= LEAST_ROWS else ROWS
        self.blocks = -(-self.windows // self.rows)
        self.columns_size = self.windows * self.depth * sizes.groups
        self.shares_columns = self.blocks < FEW_BLOCKS and self.columns_size * self.itemsize <= SHARED_BYTES
        self._nothing = np.zeros(0, dtype)

    def pack(self, weight: Array) -> Array | None:
        """The weight ``(F, C/G, *K)`` as the matrix ``(K*C/G, F)``, or None if it is that."""
        return pack(weight, self.problem)

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: Array | None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU; ``packed`` is what `pack` returned for the weight, if it was called."""
        p, sizes, groups = self.problem, self.sizes, self.sizes.groups
        flat, laying = laid(x, sizes)
        by_channel, right, is_turned, step, group_step, copying = self._right(weight, packed)
        y = empty((p.samples, *p.windows.count, p.features), self.dtype)
        out, g = y.reshape(-1, p.features), sizes.table()
        offsets = self._nothing if bias is None else contiguous(bias)
        matrix = (right, is_turned, step, group_step, groups)
        calls = [call for call in (laying, copying) if call is not None]
        if sizes.is_pointwise:
            calls.append(self._products(flat, sizes.channels, self.within, matrix, self.depth, offsets, relu, out))
        elif self.shares_columns or by_channel:
            columns = empty((groups * self.windows, self.depth), self.dtype)
            rows = max(1, min(self.rows, -(-self.windows // FEW_BLOCKS)))
            items = groups * -(-self.windows // rows)
            calls.append(cut_columns.bind(items, flat, g, groups, by_channel, rows, columns))
            left = (columns.reshape(-1), self.depth, self.windows * self.depth)
            calls.append(self._products(*left, matrix, self.depth, offsets, relu, out))
        else:
            rest = (*matrix, self.rows, offsets, relu, out)
            calls.append(cut_and_multiply.bind(self.blocks, self.blas, flat, g, *rest))
        perform(Bound.join(calls))
        return y

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        """``dx (N, *S, C)``: products of ``dy`` and the weight, added up where windows read (col2im)."""
        p, sizes, groups = self.problem, self.sizes, self.sizes.groups
        matrix, copying = matrix_of(weight, p)
        upstream = contiguous(dy).reshape(-1, p.features)
        dx = empty((p.samples, *p.spatial, p.channels), self.dtype)
        out, g = dx.reshape(p.samples, -1), sizes.table()
        calls = [] if copying is None else [copying]
        turned = (matrix.reshape(-1), 1, p.features, self.filters, groups)
        left = (upstream.reshape(-1), p.features, self.filters)
        if sizes.is_pointwise:
            rows = dx.reshape(-1, p.channels)
            calls.append(self._products(*left, turned, self.filters, self._nothing, False, rows))
        elif self.shares_columns:
            columns = empty((self.windows, groups * self.depth), self.dtype)
            calls.append(self._products(*left, turned, self.filters, self._nothing, False, columns))
            rows = max(1, -(-sizes.spatial[0] * p.samples // (4 * FEW_BLOCKS)))
            rows = min(rows, sizes.spatial[0])
            items = p.samples * -(-sizes.spatial[0] // rows)
            calls.append(fold_columns.bind(items, columns.reshape(-1), g, groups, rows, out))
        else:
            samples, rows = self._samples_and_rows()
            items = -(-p.samples // samples) * -(-sizes.spatial[0] // rows)
            arguments = (upstream, g, matrix, groups, samples, rows, out)
            calls.append(multiply_and_fold.bind(items, self.blas, *arguments))
        perform(Bound.join(calls))
        return dx

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C/G, *K)``; in memory, features vary fastest, then channels."""
        p, sizes, groups = self.problem, self.sizes, self.sizes.groups
        flat, laying = laid(x, sizes)
        upstream = contiguous(dy).reshape(-1, p.features)
        out, g = empty((self.depth, p.features), self.dtype), sizes.table()
        calls = [] if laying is None else [laying]
        lanes = min(LANES, self.blocks, LANES_SIZE // out.size)
        if lanes >= min(4, self.blocks):
            sums = empty((lanes, *out.shape), self.dtype)
            arguments = (flat, g, upstream, groups, self.rows, sizes.is_pointwise, sums)
            calls.append(correlate_lanes.bind(lanes, self.blas, *arguments))
            rows = max(1, SUM_SIZE // p.features)
            calls.append(add_lanes.bind(-(-self.depth // rows), sums, rows, out))
        else:
            parts = self._parts()
            rest = (groups, 2 * ROWS, sizes.is_pointwise, out)
            calls.append(correlate_parts.bind(len(parts) * groups, self.blas, flat, g, upstream, parts, *rest))
        perform(Bound.join(calls))
        dweight = out.reshape(*p.windows.kernel, self.within, p.features)
        return dweight.transpose(-1, -2, *range(len(p.spatial)))

    def _right(self, weight: Array, packed: Array | None) -> tuple[bool, Array, bool, int, int, Bound | None]:
        """The weight as the right factor: whether its cells vary fastest, its numbers, whether it is turned, the
        distance of its rows and groups, and the job that copies it, if any."""
        p = self.problem
        if packed is not None:
            return False, packed.reshape(-1), False, p.features, self.filters, None
        numbers, first, (cell, channel, step) = weight_strides(weight, p)
        cells = p.windows.cells
        # The distance to a second feature that does not exist may be any, but a matrix library requires whole rows.
        step = step if p.features > 1 else self.depth
        if not first and channel == 1 and cell in (self.within, 1 if cells == 1 else self.within):
            return False, numbers, True, step, self.filters * step, None
        # For few windows, to copy the weight takes longer than the product.
        if not first and cells > 1 and cell == 1 and channel == cells and self.windows < self.filters:
            return True, numbers, True, step, self.filters * step, None
        matrix, copying = matrix_of(weight, p)
        return False, matrix.reshape(-1), False, p.features, self.filters, copying

    def _products(
        self,
        left: Array,
        left_step: int,
        left_group: int,
        right: tuple[Any, ...],
        depth: int,
        bias: Array,
        relu: bool,
        out: Array,
    ) -> Bound:
        """The job `multiply`, cut so that a product of many columns has parts of a cache's size."""
        groups = right[-1]
        columns = out.shape[1] // groups
        unpacked = (UNPACKED - 1) // (depth * columns)
        rows = min(ROWS, unpacked) if unpacked >= LEAST_ROWS else ROWS
        part = min(columns, PART_FEATURES) if rows == ROWS else columns
        items = groups * -(-columns // part) * -(-len(out) // rows)
        arguments = (left, left_step, left_group, *right, depth, rows, part, bias, relu, out)
        return multiply.bind(items, self.blas, *arguments)

    def _samples_and_rows(self) -> tuple[int, int]:
        """Of an item in the gradient of the input: whole samples, or rows of the first axis of one."""
        sizes = self.sizes
        sample_bytes = max(1, sizes.windows_of_sample * self.depth * sizes.groups * self.itemsize)
        height = sizes.spatial[0]
        if sample_bytes <= FOLD_BYTES:
            samples = max(1, min(FOLD_BYTES // sample_bytes, ROWS // sizes.windows_of_sample))
            return min(samples, -(-sizes.samples // FEW_BLOCKS)), height
        rows = max(FOLD_BYTES * height // sample_bytes, 2 * sizes.windows.kernel[0])
        return 1, min(height, rows)

    def _parts(self) -> Any:
        """Parts of the rows of a weight's gradient: first cell, cells, first channel, channels."""
        cells, within = self.sizes.windows.cells, self.within
        found = []
        if within >= PART_DEPTH // 2:
            count = -(-within // PART_DEPTH)
            for cell in range(cells):
                for i in range(count):
                    first, last = within * i // count, within * (i + 1) // count
                    found.append((cell, 1, first, last - first))
        else:
            some = PART_DEPTH // within
            found = [(cell, min(some, cells - cell), 0, within) for cell in range(0, cells, some)]
        return np.array(found, np.int64)


def prepare(problem: ConvolutionProblem, dtype: str) -> Columns | None:
    """For one to three axes, a problem that has outputs, and a matrix library that is found."""
    # Along the last axis, neighbouring cells are copied at once; samples are cut along the first.
    sizes = Sizes.of(problem, first=len(problem.spatial) == 1)
    if dtype not in ("float32", "float64") or sizes is None or not sizes.multiply_adds:
        return None
    blas = gemm_address(dtype)
    return Columns(problem, sizes, dtype, blas) if blas else None
