"""Convolution by `direct_convolution`: blocks of the batch, and the calls of its jobs."""

from dataclasses import replace
from math import prod

import numpy as np

from ....common.types import Array
from . import results
from .bound import Bound
from .column_jobs import add_lanes
from .compiler import contiguous
from .convolution_layouts import matrix_of, pack
from .convolution_sizes import ConvolutionProblem, Sizes, flat_with_strides
from .direct_convolution import convolve, correlate
from .pool import perform
from .window_offsets import window_offsets

# Most bytes of input and output of a block, and most multiply-adds: some 20 microseconds.
BLOCK_BYTES, BLOCK_MULTIPLY_ADDS = 1 << 18, 1 << 20
# Most sums that are computed side by side in the gradient of the weight, and most numbers of all of them.
LANES, LANES_SIZE = 16, 1 << 19
# Numbers of a weight's gradient that an item adds up.
SUM_SIZE = 1 << 12


class DirectConvolution:
    """Forward and weight's gradient of a convolution of one group in float32."""

    def __init__(self, problem: ConvolutionProblem, sizes: Sizes) -> None:
        self.problem, self.sizes = problem, sizes
        w, n = sizes.windows, sizes.samples
        row_cells = prod(w.count[1:])
        row_bytes = 4 * (
            row_cells * sizes.features + w.stride[0] * sizes.padded[1] * sizes.padded[2] * sizes.channels
        )
        row_products = row_cells * sizes.features * sizes.depth
        most = max(1, min(BLOCK_BYTES // max(1, row_bytes), BLOCK_MULTIPLY_ADDS // max(1, row_products)))
        samples = min(n, max(1, most // max(1, w.count[0])))
        rows = min(w.count[0], most)
        # The rows of a sample in blocks of nearly the same length.
        rows = -(-w.count[0] // -(-w.count[0] // rows)) if samples == 1 and rows else w.count[0]
        self.blocks_of_sample = -(-w.count[0] // max(1, rows))
        self.blocks = -(-n // max(1, samples)) * self.blocks_of_sample
        windows = replace(w, count=(rows, *w.count[1:]))
        strip_rows = sizes.padded[0] if samples > 1 else min(sizes.padded[0], windows.extent[0])
        numbers = (samples, rows, self.blocks_of_sample, strip_rows, *sizes.padded[1:])
        self._zeros = np.zeros(sizes.features, np.float32)
        #: By whether a padded copy of the input is read: the numbers of blocks, offsets of windows and of their cells.
        self._read = {
            is_copied: (
                np.array([*numbers, is_copied], np.int64),
                *window_offsets((samples, *(numbers[3:] if is_copied else sizes.spatial), sizes.channels), windows),
            )
            for is_copied in (False, True)
        }

    def pack(self, weight: Array) -> Array:
        """The weight ``(F, C, *K)`` as the matrix ``(K*C, F)``."""
        return pack(weight, self.problem)

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: Array | None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU; ``packed`` is what `pack` returned for the weight, if it was called."""
        p = self.problem
        matrix, copying = (packed, None) if packed is not None else matrix_of(weight, p)
        y = results.empty((p.samples, *p.windows.count, p.features), np.float32)
        start = self._zeros if bias is None else contiguous(bias)
        rows = y.reshape(-1, p.features)
        call = convolve.bind(self.blocks, *self._operands(x), matrix, start, relu, rows)
        perform(call if copying is None else Bound.join([copying, call]))
        return y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, *K)``; in memory, features vary fastest, then channels."""
        p, depth = self.problem, self.sizes.depth
        lanes = max(1, min(LANES, self.blocks, LANES_SIZE // (depth * p.features)))
        sums = results.empty((2, lanes, depth, p.features), np.float32)
        upstream = contiguous(dy).reshape(-1, p.features)
        out = results.empty((depth, p.features), np.float32)
        rows = max(1, SUM_SIZE // p.features)
        calls = [
            correlate.bind(lanes, *self._operands(x), upstream, self._zeros, self.blocks, sums),
            add_lanes.bind(-(-depth // rows), sums[0], rows, out),
        ]
        perform(Bound.join(calls))
        return out.reshape(*p.windows.kernel, p.channels, p.features).transpose(-1, -2, *range(len(p.spatial)))

    def _operands(self, x: Array) -> tuple[Array, ...]:
        """What both jobs read of the input: its numbers, sizes, blocks, and the offsets of windows and their cells."""
        flat, strides = flat_with_strides(x, self.sizes)
        is_copied = self.sizes.is_padded or strides != self.sizes.contiguous_strides
        return flat, self.sizes.table(strides), *self._read[is_copied]


def prepare(problem: ConvolutionProblem, dtype: str) -> DirectConvolution | None:
    """For float32, one group, one to three axes, and a problem that has outputs."""
    sizes = Sizes.of(problem, first=False)
    if dtype != "float32" or problem.groups > 1 or sizes is None or not sizes.multiply_adds:
        return None
    return DirectConvolution(problem, sizes)
