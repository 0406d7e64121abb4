"""Depthwise convolution by `depthwise_convolution`: how the batch is cut, and the calls of its jobs."""

from dataclasses import replace
from math import prod

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .bound import Bound
from .compiler import contiguous
from .convolution_layouts import ENTRIES, laid, matrix_of, pack
from .convolution_sizes import ConvolutionProblem, Sizes
from .depthwise_convolution import convolve_channels, correlate_channels, repeat_channels, sum_repeated_channels
from .lane_sums import add_lanes
from .pool import perform
from .window_offsets import WindowClasses, window_classes

# Multiply-adds of an item: some 20 microseconds.
ITEM_MULTIPLY_ADDS = 1 << 20
# Most windows of a class in the weight's gradient, so that their input stays in a cache for all channels.
WINDOWS_OF_CLASS = 64
# Most sums that are computed side by side in the gradient of the weight.
LANES = 16


class Depthwise:
    """Forward and both gradients of a convolution with a group for each channel, in float32."""

    def __init__(self, problem: ConvolutionProblem, sizes: Sizes) -> None:
        self.problem, self.sizes = problem, sizes
        self.times = sizes.features // sizes.channels
        w, self.cells = sizes.windows, prod(sizes.spatial)
        work = self.cells * w.cells * sizes.features
        #: Samples of an item, or pieces of one sample.
        self.samples = max(1, min(ITEM_MULTIPLY_ADDS // max(1, work), sizes.samples))
        self.pieces = max(1, work // ITEM_MULTIPLY_ADDS)
        self._read, self._write = (*sizes.spatial, sizes.features), (*w.count, sizes.features)
        self._zeros = np.zeros(sizes.features, np.float32)
        self._whole = replace(w, count=sizes.spatial)

    def pack(self, weight: Array) -> Array | None:
        """The weight ``(F, 1, *K)`` as the matrix ``(K, F)``, or None if it is that."""
        return pack(weight, self.problem)

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: Array | None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU; ``packed`` is what `pack` returned for the weight, if it was called."""
        p, n = self.problem, self.sizes.samples
        y = empty((n, *p.windows.count, p.features), np.float32)
        source, calls = self._repeated(x)
        matrix, copying = (packed, None) if packed is not None else matrix_of(weight, p)
        if copying is not None:
            calls.append(copying)
        most = -(-self.sizes.windows_of_sample // self.pieces) if self.pieces > 1 else 0
        classes = window_classes(self._read, self.sizes.windows, self.sizes.before, most=most)
        offsets = self._zeros if bias is None else contiguous(bias)
        out = y.reshape(n, -1, p.features)
        calls.append(self._products(source, classes, matrix, offsets, relu, out))
        perform(Bound.join(calls))
        return y

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        """``dx (N, *S, C)``: each cell is the sum over the windows that contain it."""
        p, n = self.problem, self.sizes.samples
        dx = empty((n, *p.spatial, p.channels), np.float32)
        matrix, copying = matrix_of(weight, p)
        calls = [] if copying is None else [copying]
        most = -(-self.cells // self.pieces) if self.pieces > 1 else 0
        classes = window_classes(self._write, self._whole, self.sizes.before, adjoint=True, most=most)
        out = dx.reshape(n, self.cells, p.channels)
        if self.times > 1:
            out = empty((n, self.cells, p.features), np.float32)
        upstream = contiguous(dy).reshape(n, -1)
        calls.append(self._products(upstream, classes, matrix, self._zeros, False, out))
        if self.times > 1:
            rows = max(1, ENTRIES // p.features)
            parts = out.reshape(-1, p.features)
            items = -(-len(parts) // rows)
            calls.append(sum_repeated_channels.bind(items, parts, rows, dx.reshape(-1, p.channels)))
        perform(Bound.join(calls))
        return dx

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, 1, *K)``; in memory, features vary fastest."""
        p, sizes, n = self.problem, self.sizes, self.sizes.samples
        source, calls = self._repeated(x)
        classes = window_classes(self._read, sizes.windows, sizes.before, most=WINDOWS_OF_CLASS)
        lanes = min(LANES, n * self.pieces)
        sums = empty((lanes, sizes.windows.cells, p.features), np.float32)
        out = empty(sums.shape[1:], np.float32)
        upstream = contiguous(dy).reshape(n, -1, p.features)
        calls.append(correlate_channels.bind(lanes, source, *classes, upstream, self.pieces, sums))
        calls.append(add_lanes.bind(1, sums, len(out), out))
        perform(Bound.join(calls))
        dweight = out.reshape(*p.windows.kernel, 1, p.features)
        return dweight.transpose(-1, -2, *range(len(p.spatial)))

    def _repeated(self, x: Array) -> tuple[Array, list[Bound]]:
        """``x`` with a channel for each feature, ``(N, S*F)``, and the jobs that copy it."""
        p, n = self.problem, self.sizes.samples
        flat, laying = laid(x, self.sizes)
        calls = [] if laying is None else [laying]
        if self.times == 1:
            return flat.reshape(n, -1), calls
        wide = empty((n * self.cells, p.features), np.float32)
        rows = max(1, ENTRIES // p.features)
        calls.append(repeat_channels.bind(-(-len(wide) // rows), flat.reshape(-1, p.channels), rows, wide))
        return wide.reshape(n, -1), calls

    def _products(self, x: Array, classes: WindowClasses, matrix: Array, bias: Array, relu: bool, out: Array) -> Bound:
        pieces = min(self.pieces, len(classes.split) - 1)
        items = -(-self.sizes.samples // self.samples) * pieces
        return convolve_channels.bind(items, x, *classes, matrix, bias, relu, self.samples, pieces, out)


def prepare(problem: ConvolutionProblem, dtype: str) -> Depthwise | None:
    """For float32, one to three axes, and a problem that has outputs."""
    sizes = Sizes.of(problem, first=False)
    is_depthwise = problem.groups == problem.channels and not problem.rotated
    if dtype != "float32" or not is_depthwise or sizes is None or not sizes.multiply_adds:
        return None
    return Depthwise(problem, sizes)
