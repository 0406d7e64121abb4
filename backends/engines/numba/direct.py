"""Convolution by `direct_convolution`: blocks of the batch, and the calls of its jobs."""

from dataclasses import replace
from math import prod

import numpy as np

from ....common.types import Array
from ...overrides import chosen
from ...recording.calls import empty
from .bound import Bound
from .compiler import contiguous
from .convolution_layouts import lay_padded, matrix_of, pack
from .convolution_sizes import ConvolutionProblem, Sizes, flat_with_strides
from .direct_convolution import PANEL, convolve, correlate
from .lane_sums import add_lanes
from .neighbours import gather_matrix, joined, neighbours, rows_of_kernel, spread_matrix
from .pool import perform
from .window_offsets import window_offsets

# Most bytes of input and output of a block, and multiply-adds of one in forward, some 20 microseconds. With fewer
# windows than `LEAST_WINDOWS` the weight would be read too often.
BLOCK_BYTES, BLOCK_MULTIPLY_ADDS, LEAST_WINDOWS = 1 << 18, 1 << 20, 64
# Entries of the input that an item copies where all items read one copy, some 2 microseconds.
ENTRIES = 1 << 14
# Most sums that are computed side by side in the gradient of the weight, and most numbers of all of them.
LANES, LANES_SIZE = 16, 1 << 19
# Least features of an item: those of a panel.
MIN_PART = PANEL
# Numbers of a weight's gradient that an item adds up.
SUM_SIZE = 1 << 12
# What items read: the input, a padded copy of a block that each item makes, or a padded copy of the whole.
INPUT, OWN_COPY, COPY = range(3)


class _Blocks:
    """A batch in blocks of some samples, or of some rows of the first axis of one sample.

    Parameters
    ----------
    sizes : Sizes
    most : int
        The most rows of windows of a block.
    """

    def __init__(self, sizes: Sizes, most: int) -> None:
        w = sizes.windows
        samples, rows = max(1, min(sizes.samples, most // w.count[0])), w.count[0]
        if samples == 1:
            # Blocks of nearly the same length.
            rows = -(-rows // -(-rows // max(1, most)))
        of_sample = -(-w.count[0] // rows)
        self.count = -(-sizes.samples // samples) * of_sample
        windows = replace(w, count=(rows, *w.count[1:]))
        strip_rows = sizes.padded[0] if samples > 1 else min(sizes.padded[0], windows.extent[0])
        numbers = (samples, rows, of_sample, strip_rows, *sizes.padded[1:])
        #: By what is read, the input itself or a copy: the numbers of blocks, offsets of windows and of their cells.
        self.read = {
            source: (
                np.array([*numbers, source == OWN_COPY], np.int64),
                *window_offsets((samples, *spatial, sizes.channels), windows),
            )
            for source, spatial in ((INPUT, sizes.spatial), (OWN_COPY, numbers[3:]), (COPY, sizes.padded))
        }


class DirectConvolution:
    """Forward and weight's gradient of a convolution of one group in float32."""

    def __init__(self, problem: ConvolutionProblem, sizes: Sizes) -> None:
        self.problem = problem
        #: Outputs that are computed together, and the sizes of their convolution.
        self.neighbours = 1 if problem.algorithms == "direct" else neighbours(sizes)
        self.depth, self._rows = sizes.depth, rows_of_kernel(sizes)
        self._shift = sizes.windows.stride[-1] * sizes.channels
        self.sizes = sizes = joined(sizes, self.neighbours) if self.neighbours > 1 else sizes
        w = sizes.windows
        cells = prod(w.count[1:])
        row_bytes = 4 * (cells * sizes.features + w.stride[0] * prod(sizes.padded[1:]) * sizes.channels)
        most = (chosen().block_bytes or BLOCK_BYTES) // row_bytes
        products = BLOCK_MULTIPLY_ADDS // (cells * sizes.features * sizes.depth)
        self._forward = _Blocks(sizes, min(most, max(products, LEAST_WINDOWS // cells)))
        shares = -(-sizes.samples * w.count[0] // LANES)
        self._backward = _Blocks(sizes, min(most, max(shares, LEAST_WINDOWS // cells)))
        self._zeros = np.zeros(sizes.features, np.float32)
        self._lanes = max(1, min(LANES, self._backward.count, LANES_SIZE // (sizes.depth * sizes.features)))
        #: Features of a panel of the packed weight.
        self._panel = PANEL if self.neighbours == 1 else 0
        self._forward_part = self._part(self._forward.count)
        self._backward_part = self._part(self._lanes)

    def _part(self, items: int) -> int:
        """Features of an item, where blocks are so few that items share features too."""
        features, products = self.sizes.features, self.sizes.multiply_adds // items
        parts = max(1, min(-(-LANES // items), products // BLOCK_MULTIPLY_ADDS, features // MIN_PART))
        return MIN_PART * -(-features // (MIN_PART * parts)) if parts > 1 else features

    def pack(self, weight: Array) -> Array | None:
        """The weight ``(F, C, *K)`` as the matrix ``(K*C, F)``, in panels if it is large; None if it is that matrix."""
        return pack(weight, self.problem, self._panel)

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: Array | None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU; ``packed`` is what `pack` returned for the weight, if it was called."""
        p, sizes = self.problem, self.sizes
        matrix, copying = (packed, None) if packed is not None else matrix_of(weight, p)
        calls = [] if copying is None else [copying]
        start = self._zeros[: p.features] if bias is None else contiguous(bias)
        if self.neighbours > 1:
            wide = empty((sizes.depth + 1, sizes.features), np.float32)
            calls.append(spread_matrix.bind(1, matrix, start, self._rows, self._shift, self.neighbours, wide))
            matrix, start = wide[:-1], wide[-1]
        y = empty((p.samples, *p.windows.count, p.features), np.float32)
        rows = y.reshape(-1, sizes.features)
        part, blocks = self._forward_part, self._forward
        items = blocks.count * -(-sizes.features // part)
        operands = self._operands(x, blocks)
        if items > blocks.count and operands[2] is blocks.read[OWN_COPY][0]:
            operands, copying = self._padded(x, blocks)
            calls.append(copying)
        in_panels = packed is not None and self._panel > 0
        calls.append(convolve.bind(items, *operands, matrix, start, relu, part, in_panels, rows))
        perform(Bound.join(calls))
        return y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, *K)``; in memory, features vary fastest, then channels."""
        p, blocks, depth, features = self.problem, self._backward, self.sizes.depth, self.sizes.features
        lanes, part = self._lanes, self._backward_part
        items = lanes * -(-features // part)
        sums = empty((2, lanes, depth, features), np.float32)
        upstream = contiguous(dy).reshape(-1, features)
        out = empty((depth, features), np.float32)
        rows = max(1, SUM_SIZE // features)
        calls = [
            correlate.bind(items, *self._operands(x, blocks), upstream, self._zeros, blocks.count, part, sums),
            add_lanes.bind(-(-depth // rows), sums[0], rows, out),
        ]
        if self.neighbours > 1:
            wide, out = out, empty((self.depth, p.features), np.float32)
            calls.append(gather_matrix.bind(1, wide, self._rows, self._shift, self.neighbours, out))
        perform(Bound.join(calls))
        return out.reshape(*p.windows.kernel, p.channels, p.features).transpose(-1, -2, *range(len(p.spatial)))

    def _operands(self, x: Array, blocks: _Blocks) -> tuple[Array, ...]:
        """What both jobs read of the input: its numbers, sizes, blocks, and the offsets of windows and their cells."""
        flat, strides = flat_with_strides(x, self.sizes)
        is_copied = self.sizes.is_padded or strides != self.sizes.contiguous_strides
        return flat, self.sizes.table(strides), *blocks.read[OWN_COPY if is_copied else INPUT]

    def _padded(self, x: Array, blocks: _Blocks) -> tuple[tuple[Array, ...], Bound]:
        """`_operands` that read a padded copy of the whole input, and the job that makes it."""
        sizes = self.sizes
        height, width, depth = sizes.padded
        flat, strides = flat_with_strides(x, sizes)
        row = width * depth * sizes.channels
        out, rows = empty((sizes.samples * height, row), np.float32), min(height, max(1, ENTRIES // row))
        items = sizes.samples * -(-height // rows)
        copying = lay_padded.bind(items, flat, sizes.table(strides), rows, height, width, depth, out)
        return (out.reshape(-1), sizes.within_padding.table(), *blocks.read[COPY]), copying


def prepare(problem: ConvolutionProblem, dtype: str) -> DirectConvolution | None:
    """For float32, one group, one to three axes, and a problem that has outputs."""
    sizes = Sizes.of(problem, first=False)
    if dtype != "float32" or problem.groups > 1 or sizes is None or not sizes.multiply_adds:
        return None
    return DirectConvolution(problem, sizes)
