"""Winograd's minimal filtering on a CPU: compiled transforms, and one matrix product for each point.

The formulas are in `xpnn.layers.convolution.winograd`. Arrays of all tiles or of all transformed weights do not fit
into a cache. So the work is cut into parts whose transformed arrays do, and each part goes through all steps before the
next one begins; within a step, threads share its items. A part has some tiles and all features. If the weight is large
and there are few tiles, it has all tiles and some features, whose weights are transformed when its turn comes.
"""

from math import nan, prod
from typing import Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from ...recording.calls import empty
from .blas import gemm_address
from .bound import Bound, address_of
from .compiler import contiguous
from .jobs import Job
from .pool import perform
from .winograd_jobs import KERNEL, correlate, multiply, transform_jobs
from .winograd_vectors import Matrix, vector_lanes

# Bytes of the transformed input, weights or output of a part that comes in such.
PART_BYTES = 3 << 20
# Bytes that do not stay in a cache: of transformed weights, so that parts have some features if the transformed input
# is smaller; and of what every part reads as a whole, so that parts are larger and fewer.
LARGE_BYTES = 6 << 20
# Tiles of one channel, or kernels, that an item transforms: some 10 microseconds.
ITEM_CHANNELS = 2048
# Multiply-adds of a piece of a product at most, some 60 microseconds, unless a side would be shorter than this.
MOST_PRODUCTS, LEAST_SIDE = 6 << 20, 64
# Numbers in a cache line.
LINE = 16


class Convolution(Protocol):
    """The sizes of a convolution: see `xpnn.layers.convolution.problem.Problem`."""

    samples: int
    spatial: tuple[int, ...]
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
        self.problem, self.grid, self.m, self.blas = p, tiling.grid, tiling.m, blas
        self.jobs, self.points = transform_jobs(tiling.matrices), len(tiling.matrices[0]) ** 2
        self.tiles = p.samples * prod(tiling.grid)
        # Bytes of all points' matrices for each row and column.
        size = 4 * self.points
        weight_bytes, input_bytes = size * p.channels * p.features, size * p.channels * self.tiles
        if tiling.shares_filters or weight_bytes > max(LARGE_BYTES, input_bytes):
            lanes = vector_lanes()
            vectors = _part_bytes(input_bytes) // (size * max(p.channels, self.tiles) * lanes)
            self.each_tile, self.each_feature = self.tiles, min(p.features, max(1, vectors) * lanes)
        else:
            most = _part_bytes(weight_bytes) // (size * max(p.channels, p.features))
            self.each_tile, self.each_feature = min(self.tiles, max(1, most)), p.features
        #: Tiles of each part of them, and features of each part of those; one of the lists has one entry.
        self.tile_parts = _parts(self.tiles, self.each_tile)
        self.feature_parts = _parts(p.features, self.each_feature)
        self.no_bias = np.zeros(p.features, np.float32)

    def pack(self, weight: Array) -> Array | None:
        """The transformed weight, for `forward`; None if reading it from memory would take longer than making it."""
        if len(self.feature_parts) > 1:
            return None
        pitch = _pitch(self.problem.channels, self.problem.features)
        packed = _aligned(self.points * pitch)
        perform(self._weight(weight, packed, pitch))
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
        p = self.problem
        y = empty(p.y_shape, "float32")
        pitches = (
            _pitch(self.each_tile, p.channels),
            _pitch(p.channels, self.each_feature),
            _pitch(self.each_tile, self.each_feature),
        )
        inputs, weights, products = self._matrices(pitches)
        sources = [self._tiles(self.jobs.inputs, x, inputs, pitches[0], p.padding)]
        if packed is None:
            sources.append(self._weight(weight, weights, pitches[1]))
        else:
            weights = packed
        cuts = _pieces(self.each_tile, self.each_feature, p.channels)
        sizes = (self.tiles, p.channels, p.features)
        parts = (self.each_tile, self.each_feature, len(self.feature_parts))
        multiplied = multiply.bind_parts(
            self._products(self.tile_parts, self.feature_parts, cuts),
            *(inputs, weights, products, *sizes, *pitches, *cuts, *parts, self.blas),
        )
        per = _per_item(self.each_feature)
        outputs = self.jobs.outputs.bind_parts(
            [-(-tiles // per) for tiles in self.tile_parts for _ in self.feature_parts],
            *(products, self.no_bias if bias is None else contiguous(bias), y, 0.0 if relu else nan),
            *(*self.grid, per, pitches[2], *parts),
        )
        perform(_in_parts([*sources, multiplied, outputs]))
        return y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, 3, 3)``."""
        p = self.problem
        dweight = empty((p.features, p.channels, KERNEL, KERNEL), "float32")
        pitches = (
            _pitch(self.each_tile, p.channels),
            _pitch(self.each_tile, p.features),
            _pitch(self.each_feature, p.channels),
        )
        inputs, upstream, sums = self._matrices(pitches)
        no_padding = ((0, 0), (0, 0))
        sources = [
            self._tiles(self.jobs.inputs, x, inputs, pitches[0], p.padding),
            self._tiles(self.jobs.upstream, dy, upstream, pitches[1], no_padding),
        ]
        cuts = _pieces(self.each_feature, p.channels, self.each_tile)
        sizes = (self.tiles, p.channels, p.features)
        parts = (self.each_tile, self.each_feature, len(self.feature_parts))
        summed = correlate.bind_parts(
            self._products(self.feature_parts, [p.channels], cuts) * len(self.tile_parts),
            *(inputs, upstream, sums, *sizes, *pitches, *cuts, *parts, self.blas),
        )
        per = _per_item(p.channels)
        result = self.jobs.weight_gradient.bind_parts(
            [-(-features // per) for features in self.feature_parts],
            *(sums, dweight, per, pitches[2], self.each_feature),
        )
        perform(_in_parts([*sources, summed, result]))
        return dweight

    def _matrices(self, pitches: tuple[int, ...]) -> list[Array]:
        """Room for the matrices of all points, for each of the pitches."""
        room, found, start = _aligned(self.points * sum(pitches)), [], 0
        for pitch in pitches:
            found.append(room[start : start + self.points * pitch])
            start += self.points * pitch
        return found

    def _tiles(self, job: Job, x: Array, points: Array, pitch: int, padding: PadWidths) -> Bound:
        """The transform of ``x (N, *S, C)`` or of ``dy``, for each part of the tiles."""
        (above, _), (left, _) = padding
        per = _per_item(x.shape[-1])
        items = [-(-tiles // per) for tiles in self.tile_parts]
        sizes = (*self.grid, self.m, above, left, per, pitch, self.each_tile)
        return job.bind_parts(items, contiguous(x), points, *sizes)

    def _weight(self, weight: Array, points: Array, pitch: int) -> Bound:
        """The transform of the weight, for each part of the features."""
        p, per = self.problem, _per_item(self.each_feature)
        items = [-(-p.channels // per)] * len(self.feature_parts)
        return self.jobs.weight.bind_parts(items, contiguous(weight), points, p.rotated, per, pitch, self.each_feature)

    def _products(self, rows: list[int], columns: list[int], cuts: tuple[int, int]) -> list[int]:
        """Items of products of matrices with these rows and columns, cut into pieces."""
        return [self.points * -(-m // cuts[0]) * -(-n // cuts[1]) for m in rows for n in columns]


def _part_bytes(read: int) -> int:
    """Bytes of a part, if each part also reads so many bytes of the transformed weights or input."""
    return max(PART_BYTES, read // 4 if read > LARGE_BYTES else 0)


def _parts(count: int, each: int) -> list[int]:
    return [min(each, count - first) for first in range(0, count, each)]


def _pitch(rows: int, columns: int) -> int:
    """Distance of the points' matrices ``(rows, columns)``.

    It is an odd number of cache lines, so that they lie in different sets of a cache: at a multiple of 4 KiB they would
    evict each other.
    """
    return (-(-rows * columns // LINE) | 1) * LINE


def _pieces(rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Rows and columns of the pieces of a product of matrices, of which each is an item."""
    while rows * columns * depth > MOST_PRODUCTS and max(rows, columns) >= 2 * LEAST_SIDE:
        if rows >= columns:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // 2)
    return rows, columns


def _per_item(channels: int) -> int:
    """Tiles, or kernels of as many channels, that an item transforms."""
    return max(1, ITEM_CHANNELS // channels)


def _in_parts(phases: list[Bound]) -> Bound:
    """Part after part through all phases.

    A phase that does not come in parts runs before all parts, and if it is the last phase, after them.
    """
    count = max(len(phase.rows) for phase in phases)
    parted = [phase for phase in phases if len(phase.rows) == count]
    whole = [phase for phase in phases if len(phase.rows) < count]
    after = [whole.pop()] if whole and whole[-1] is phases[-1] else []
    return Bound.join([*whole, Bound.interleave(parted), *after])


def _aligned(size: int) -> Array:
    """Numbers that begin at a cache line."""
    room = empty((size + LINE,), "float32")
    start = -address_of(room) // 4 % LINE
    return room[start : start + size]


def prepare(problem: Tiling, dtype: str) -> Winograd | None:
    """For a tiling in float32 of a batch that is not empty, if NumPy's matrix library was found."""
    p = problem.problem
    is_empty = not (p.samples and p.channels and p.features and all(p.spatial))
    blas = gemm_address(dtype) if dtype == "float32" and not is_empty else 0
    return Winograd(problem, blas) if blas else None
