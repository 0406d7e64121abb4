"""Winograd's minimal filtering on a CPU: compiled transforms, and one matrix product for each point.

The formulas are in `xpnn.layers.convolution.winograd`. Arrays of all tiles or of all transformed weights do not fit
into a cache. So the work is cut into parts whose transformed arrays do, and each part goes through all steps before the
next one begins; within a step, threads share its items. Where there are few tiles, a part has all of them and some
features, and the weights of a part are transformed in its turn; otherwise it has some tiles and all features.
"""

from math import nan, prod
from typing import Any, Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .blas import gemm_address
from .bound import Bound, address_of
from .compiler import contiguous
from .pool import perform
from .results import empty
from .winograd_jobs import KERNEL, correlate, multiply, transform_jobs
from .winograd_vectors import Matrix, vector_lanes

# Bytes of the transformed input, or weights, of a part.
PART_BYTES = 3 << 20
# Bytes of transformed weights from which parts have some features, if the transformed input is smaller.
LARGE_WEIGHT_BYTES = 6 << 20
# Numbers in each channel's tile that an item transforms at least, over all channels.
ITEM_CHANNELS = 2048
# Multiply-adds of a piece of a product at most, some 60 microseconds, unless a side would be shorter than this.
MOST_PRODUCTS, LEAST_SIDE = 6 << 20, 64
# Numbers in a cache line.
LINE = 16


class Convolution(Protocol):
    """The sizes of a convolution: see `xpnn.layers.convolution.problem.Problem`."""

    samples: int
    channels: int
    features: int
    windows: Windows
    padding: PadWidths
    rotated: bool

    @property
    def x_shape(self) -> tuple[int, ...]:
        """``(N, *S, C)``."""

    @property
    def y_shape(self) -> tuple[int, ...]:
        """``(N, *O, F)``."""


class Tiling(Protocol):
    """Tiles of a convolution and their transforms: see `xpnn.layers.convolution.winograd_tiles.Tiling`."""

    problem: Convolution
    m: int
    shares_filters: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        """The transforms of inputs ``(n, n)``, of kernels ``(n, 3)`` and of outputs ``(m, n)``."""


class Winograd:
    """Forward and the weight's gradient of a 3x3 convolution at stride 1, in tiles, in float32.

    Parameters
    ----------
    tiling : Tiling
    blas : int
        From `gemm_address`.
    """

    def __init__(self, tiling: Tiling, blas: int) -> None:
        p = tiling.problem
        self.problem, self.tiling, self.blas = p, tiling, blas
        self.jobs, self.points = transform_jobs(tiling.matrices), len(tiling.matrices[0]) ** 2
        self.tiles = p.samples * prod(tiling.grid)
        weight_bytes = 4 * self.points * p.channels * p.features
        large = max(LARGE_WEIGHT_BYTES, 4 * self.points * p.channels * self.tiles)
        self.each_tile, self.each_feature = self.tiles, p.features
        if tiling.shares_filters or weight_bytes > large:
            self.each_feature = min(p.features, _fitting(self.points * p.channels, vector_lanes()))
        else:
            self.each_tile = min(self.tiles, _fitting(self.points * p.channels, 1))
        self.tile_parts, self.feature_parts = -(-self.tiles // self.each_tile), -(-p.features // self.each_feature)
        self.no_bias = np.zeros(p.features, np.float32)

    def pack(self, weight: Array) -> Array:
        """The transformed weight, which `forward` accepts in place of the weight's transform."""
        p = self.problem
        size, pitch = self._room(p.features, p.channels)
        packed = _aligned(size)
        perform(self._weight(contiguous(weight), packed, pitch, p.features))
        return packed

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: Array | None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``. The weight of a rotated problem is ``(C, F, 3, 3)``, and is rotated by 180 degrees here.

        Parameters
        ----------
        x : array, ``(N, *S, C)``
        weight : array, ``(F, C, 3, 3)``
        bias : array or None, ``(F,)``
        packed : array, optional
            ``pack(weight)``.
        relu : bool
            Whether ReLU is applied to the result.
        """
        p, jobs = self.problem, self.jobs
        y = empty(p.y_shape, "float32")
        in_features = self.feature_parts > 1
        held = self.each_feature if packed is None else p.features
        input_size, input_pitch = self._room(self.each_tile, p.channels)
        product_size, product_pitch = self._room(self.each_tile, self.each_feature)
        weight_size, weight_pitch = self._room(held, p.channels)
        room = _aligned(input_size + product_size + (weight_size if packed is None else 0))
        inputs, products = room[:input_size], room[input_size : input_size + product_size]
        weights = room[input_size + product_size :] if packed is None else packed
        parts = [self._part(i) for i in range(self.tile_parts * self.feature_parts)]
        cut_tiles, cut_features = _pieces(self.each_tile, self.each_feature, p.channels)
        pieces = [-(-tiles // cut_tiles) * -(-features // cut_features) for tiles, features in parts]
        product = multiply.bind_parts(
            [self.points * count for count in pieces],
            *(inputs, weights, products, self.tiles, p.channels, p.features, held == p.features),
            *(input_pitch, weight_pitch, product_pitch, cut_tiles, cut_features),
            *(self.each_tile, self.each_feature, self.feature_parts, self.blas),
        )
        per = _per_item(self.each_feature)
        output = jobs.outputs.bind_parts(
            [-(-tiles // per) for tiles, _ in parts],
            *(products, self.no_bias if bias is None else contiguous(bias), y, 0.0 if relu else nan),
            *(*self.tiling.grid, per, product_pitch, self.each_tile, self.each_feature, self.feature_parts),
        )
        source = self._inputs(contiguous(x), inputs, input_pitch)
        steps = []
        if packed is None:
            steps.append(self._weight(contiguous(weight), weights, weight_pitch, held))
        if in_features:
            program = [source, Bound.interleave([*steps, product, output])]
        else:
            program = [*steps, Bound.interleave([source, product, output])]
        perform(Bound.join(program))
        return y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, 3, 3)``."""
        p = self.problem
        dweight = empty((p.features, p.channels, KERNEL, KERNEL), "float32")
        input_size, input_pitch = self._room(self.each_tile, p.channels)
        upstream_size, upstream_pitch = self._room(self.each_tile, p.features)
        sum_size, sum_pitch = self._room(self.each_feature, p.channels)
        room = _aligned(input_size + upstream_size + sum_size)
        inputs, upstream = room[:input_size], room[input_size : input_size + upstream_size]
        sums = room[input_size + upstream_size :]
        parts = [self._part(i) for i in range(self.tile_parts * self.feature_parts)]
        cut_features, cut_channels = _pieces(self.each_feature, p.channels, self.each_tile)
        product = correlate.bind_parts(
            [self.points * -(-features // cut_features) * -(-p.channels // cut_channels) for _, features in parts],
            *(inputs, upstream, sums, self.tiles, p.channels, p.features, input_pitch, upstream_pitch, sum_pitch),
            *(cut_features, cut_channels, self.each_tile, self.each_feature, self.feature_parts, self.blas),
        )
        per = _per_item(p.channels)
        feature_parts = [self._part(i)[1] for i in range(self.feature_parts)]
        result = self.jobs.weight_gradient.bind_parts(
            [-(-features // per) for features in feature_parts], sums, dweight, per, sum_pitch, self.each_feature
        )
        sources = [self._inputs(contiguous(x), inputs, input_pitch), self._upstream(dy, upstream, upstream_pitch)]
        if self.feature_parts > 1:
            program = [*sources, Bound.interleave([product, result])]
        else:
            program = [Bound.interleave([*sources, product]), result]
        perform(Bound.join(program))
        return dweight

    def _part(self, part: int) -> tuple[int, int]:
        """Numbers of tiles and features of a part."""
        tile, feature = part // self.feature_parts * self.each_tile, part % self.feature_parts * self.each_feature
        return min(self.each_tile, self.tiles - tile), min(self.each_feature, self.problem.features - feature)

    def _room(self, rows: int, columns: int) -> tuple[int, int]:
        """Numbers of all points' matrices ``(rows, columns)``, and their distance.

        It is an odd number of cache lines, so that they lie in different sets of a cache: at a multiple of 4 KiB they
        would evict each other.
        """
        pitch = (-(-rows * columns // LINE) | 1) * LINE
        return self.points * pitch, pitch

    def _inputs(self, x: Array, points: Array, pitch: int) -> Bound:
        """The input's transform, for each part of the tiles."""
        (above, _), (left, _) = self.problem.padding
        return self._tiles(self.jobs.inputs, x, points, above, left, pitch)

    def _upstream(self, dy: Array, points: Array, pitch: int) -> Bound:
        return self._tiles(self.jobs.upstream, contiguous(dy), points, 0, 0, pitch)

    def _tiles(self, job: Any, x: Array, points: Array, above: int, left: int, pitch: int) -> Bound:
        per = _per_item(x.shape[-1])
        items = [-(-self._part(i * self.feature_parts)[0] // per) for i in range(self.tile_parts)]
        sizes = (*self.tiling.grid, self.tiling.m, above, left, per, pitch, self.each_tile)
        bound: Bound = job.bind_parts(items, x, points, *sizes)
        return bound

    def _weight(self, weight: Array, points: Array, pitch: int, each: int) -> Bound:
        """The weight's transform, for each part of ``each`` features."""
        p = self.problem
        counts = [min(each, p.features - i) for i in range(0, p.features, each)]
        per = _per_item(counts[0])
        items = [-(-p.channels // per)] * len(counts)
        return self.jobs.weight.bind_parts(items, weight, points, p.rotated, per, pitch, each)


def _fitting(row: int, multiple: int) -> int:
    """Rows of ``row`` float32 that fit into a part, a multiple of some number and not 0."""
    return max(1, PART_BYTES // (4 * row * multiple)) * multiple


def _pieces(rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Sides of the pieces of a product of matrices, of which each is an item."""
    while rows * columns * depth > MOST_PRODUCTS and max(rows, columns) >= 2 * LEAST_SIDE:
        if rows >= columns:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // (2 * LINE)) * LINE
    return rows, columns


def _per_item(channels: int) -> int:
    return max(1, ITEM_CHANNELS // channels)


def _aligned(size: int) -> Array:
    """Numbers that begin at a cache line."""
    room = empty((size + LINE,), "float32")
    start = -address_of(room) // 4 % LINE
    return room[start : start + size]


def prepare(problem: Tiling, dtype: str) -> Winograd | None:
    """For a tiling in float32 of a batch that is not empty."""
    blas = gemm_address(dtype) if dtype == "float32" else 0
    p = problem.problem
    is_empty = not (p.samples and p.channels and p.features)
    return None if is_empty or not blas else Winograd(problem, blas)
