"""Winograd's convolution F(4x4, 3x3) in exact numerics: 36 products of whole numbers for 16 outputs instead of 144.

The transforms are of whole numbers (`exact_winograd_jobs`), so that transformed slices are whole too, and their sums of
products are exact as long as no partial sum exceeds 2**53 (`exact_products`). With common multiples of the transforms'
divisors, the results are 576 times those of sums over windows, as int64 modulo 2**64, and after the division the very
same whole numbers: which of the two computed them can't be seen in the bits.

Work is cut into parts as in `xpnn.backends.engines.numba.winograd`.

References
----------
A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from collections.abc import Sequence
from math import frexp, ldexp, prod
from typing import Any, Protocol

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .blas import gemm_address
from .bound import Bound, address_of
from .exact_products import correlate, judge_channels, judge_tiles, multiply
from .exact_winograd_jobs import (
    LANES,
    OUTPUTS,
    POINTS,
    combine_gradient,
    gradient_quanta,
    inputs_by_channel,
    inputs_by_tile,
    outputs,
    upstream_by_channel,
    weights,
)
from .exact_spoiled import spoiled
from .pool import perform
from .winograd import Convolution

# Channels and features are multiples of it.
MULTIPLE = 16
# Bits of quanta, which are known from 576 times their value modulo 2**64.
MOST_BITS = 56
# Most tiles whose quanta are added as transformed totals, so that these have at most `MOST_BITS`.
GROUP_TERMS = 1 << 16
# Fewest terms of a product whose right operand is cut in two.
FEWEST_TERMS = 8
# Largest sums of entries of a row of the transforms of inputs, kernels and gradients, along both axes.
OF_INPUT, OF_KERNEL, OF_UPSTREAM = 100.0, 49.0, 225.0
# As in `xpnn.backends.engines.numba.winograd`, where numbers have half as many bytes.
PART_BYTES, LARGE_BYTES = 2 << 20, 6 << 20
ITEM_CHANNELS, MOST_PRODUCTS, LEAST_SIDE = 2048, 4 << 20, 64
LINE = 8


class Plan(Protocol):
    """How operands are split: see `xpnn.backends.exact.splitting.Budget`."""

    terms: int
    left_bits: int
    left_count: int
    right_bits: int
    right_count: int
    product_terms: int


class _Tiles:
    """What forward and the weight's gradient have in common.

    Parameters
    ----------
    problem : Convolution
    plan : Plan
    blas : int
        From `gemm_address`.
    right : float
        The largest sum of entries of a row of the right operand's transform.
    """

    def __init__(self, problem: Convolution, plan: Plan, blas: int, right: float) -> None:
        self.problem, self.plan, self.blas, self.count = problem, plan, blas, plan.right_count
        self.grid = tuple(-(-size // OUTPUTS) for size in problem.windows.count)
        self.tiles = problem.samples * prod(self.grid)
        #: From which bit the right operand is cut in two, and the terms of exact products of these halves.
        largest = right * 2.0**plan.right_bits
        self.half = max(frexp(largest)[1] // 2, 1)
        of_half = max(2.0 ** (self.half - 1), largest * 2.0**-self.half + 1)
        self.most = int(2.0**53 / (OF_INPUT * 2.0**plan.left_bits * of_half))

    def cut(self, wide: int, inputs: int, weight: int) -> None:
        """Choose parts, for ``wide`` columns and bytes of transformed inputs and weights (or totals)."""
        p, size = self.problem, 8 * POINTS
        if weight > max(LARGE_BYTES, inputs):
            per_feature = size * max(p.channels, self.tiles) * self.count * MULTIPLE
            self.each_tile = self.tiles
            self.each_feature = min(p.features, max(1, _part_bytes(inputs) // per_feature) * MULTIPLE)
        else:
            most = _part_bytes(weight) // (size * max(p.channels, wide))
            self.each_tile, self.each_feature = min(self.tiles, max(1, most)), p.features
        self.tile_parts = _parts(self.tiles, self.each_tile)
        self.feature_parts = _parts(p.features, self.each_feature)


class ExactForward(_Tiles):
    """Forward of a convolution: see `ExactWinograd`."""

    def __init__(self, problem: Convolution, plan: Plan, blas: int) -> None:
        super().__init__(problem, plan, blas, OF_KERNEL)
        size, wide = 8 * POINTS, self.count * problem.features
        self.cut(wide, size * problem.channels * self.tiles, size * problem.channels * wide)
        self.no_bias = np.zeros(problem.features)

    def __call__(self, x: Array, weight: Array, bias: Array | None, s: Array, t: Array, bad: Array) -> Array:
        """``y (N, *O, F)``.

        Parameters
        ----------
        x : array, ``(N, H, W, C)``
        weight : array, ``(F, C, 3, 3)``, or ``(C, F, 3, 3)`` if the problem is rotated
        bias : array or None, ``(F,)``
        s, t : array, ``(N,)`` and ``(F,)``
            Scales of samples and of features.
        bad : array, ``(N,)``
            1 for samples with a number that is not finite, else 0.
        """
        p, plan, count = self.problem, self.plan, self.count
        (above, _), (before, _) = p.padding
        tiles, kinds, wide = len(self.tile_parts), len(self.feature_parts), count * self.each_feature
        y, pitches = empty(p.y_shape, "float64"), (
            _pitch(self.each_tile, p.channels),
            _pitch(p.channels, wide),
            _pitch(self.each_tile, wide),
        )
        inputs, kernels, products = _matrices(pitches)
        per, per_block = max(1, ITEM_CHANNELS // p.channels), max(1, ITEM_CHANNELS // (64 * p.channels))
        each_item = -(-self.each_tile // per)
        left, right = empty((tiles * each_item, POINTS, LANES), "float64"), empty((p.features // LANES, POINTS), "float64")
        flags = empty((tiles * kinds, POINTS + 1), "int64")
        sizes = (*self.grid, above, before, per, pitches[0], self.each_tile, each_item)
        of_tiles = inputs_by_tile.bind_parts(
            [-(-size // per) for size in self.tile_parts],
            *(x, ldexp(1.0, plan.left_bits) / s, inputs, left, *sizes),
        )
        again = ldexp(1.0, plan.right_bits)
        of_weights = weights.bind_parts(
            [-(-size // (LANES * per_block)) for size in self.feature_parts],
            *(weight, again / t, kernels, right, again),
            *(count, p.rotated, per_block, pitches[1], self.each_feature),
        )
        judged = judge_tiles.bind_parts(
            [1] * (tiles * kinds),
            *(left, right, flags, self.tiles, per, self.each_tile, self.each_feature // LANES, kinds),
        )
        cuts = _pieces(self.each_tile, wide, p.channels)
        multiplied = multiply.bind_parts(
            [
                POINTS * -(-size // cuts[0]) * -(-count * features // cuts[1])
                for size in self.tile_parts
                for features in self.feature_parts
            ],
            *(inputs, kernels, products, flags, self.tiles, p.channels, p.features, count, *pitches, *cuts),
            *(self.each_tile, self.each_feature, kinds, self.half, self.most, self.blas),
        )
        per = max(1, ITEM_CHANNELS // (2 * wide))
        finished = outputs[count].bind_parts(
            [-(-size // per) for size in self.tile_parts for _ in self.feature_parts],
            *(products, flags, s * ldexp(1.0, -plan.left_bits), t * ldexp(1.0, -plan.right_bits)),
            *(self.no_bias if bias is None else bias, y, ldexp(1.0, -plan.right_bits)),
            *(*self.grid, per, pitches[2], self.each_tile, self.each_feature, kinds),
        )
        phases, order = [of_tiles, of_weights, judged, multiplied, finished], []
        for i in range(tiles):
            for j in range(kinds):
                order += [(0, i)] * (j == 0) + [(1, j)] * (kinds > 1 or i == 0)
                order += [(phase, i * kinds + j) for phase in (2, 3, 4)]
        marked = spoiled(x, bad, y, p.windows, p.padding, 1)
        perform(Bound.join([_in_order(phases, order), marked]))
        return y


class ExactGradient(_Tiles):
    """The weight's gradient of a convolution: see `ExactWinograd`."""

    def __init__(self, problem: Convolution, plan: Plan, blas: int) -> None:
        super().__init__(problem, plan, blas, OF_UPSTREAM)
        size, wide = 8 * POINTS, self.count * problem.features
        self.cut(wide, size * max(problem.channels, wide) * self.tiles, size * problem.channels * wide)
        self.each_tile = min(self.each_tile, GROUP_TERMS // OUTPUTS**2)
        self.tile_parts = _parts(self.tiles, self.each_tile)
        #: Parts of the tiles of a group.
        self.group = max(1, GROUP_TERMS // OUTPUTS**2 // self.each_tile) if len(self.feature_parts) == 1 else 1

    def quanta(self, x: Array, dy: Array, s: Array, t: Array) -> Array:
        """Whole numbers ``(9, C, count F)``, int64, of scales ``s (C,)`` and ``t (F,)``."""
        p, plan, count = self.problem, self.plan, self.count
        tiles, kinds = len(self.tile_parts), len(self.feature_parts)
        pitches = (
            _pitch(self.each_tile, p.channels),
            _pitch(self.each_tile, count * p.features),
            _pitch(p.channels, count * self.each_feature),
        )
        inputs, upstream, totals = _matrices(pitches)
        totals, result = totals.view("int64"), empty((9, p.channels, count * p.features), "int64")
        flags, phases, pers, squares = empty((tiles, POINTS), "int64"), [], [], []
        for job, source, factors, points, slices, pitch, padding in (
            (inputs_by_channel, x, ldexp(1.0, plan.left_bits) / s, inputs, 1, pitches[0], p.padding),
            (upstream_by_channel, dy, ldexp(1.0, plan.right_bits) / t, upstream, count, pitches[1], ((0, 0),) * 2),
        ):
            channels, (above, _), (before, _) = source.shape[-1], *padding
            per = max(1, ITEM_CHANNELS // channels)
            each_item = -(-self.each_tile // per)
            found = empty((tiles * each_item, POINTS, slices * channels), "float64")
            phases.append(
                job.bind_parts(
                    [-(-size // per) for size in self.tile_parts],
                    *(source, factors, points, found, ldexp(1.0, plan.right_bits), slices),
                    *(*self.grid, above, before, per, pitch, self.each_tile, each_item),
                )
            )
            pers.append(per)
            squares.append(found)
        phases.append(
            judge_channels.bind_parts([POINTS] * tiles, *squares, flags, self.tiles, *pers, self.each_tile)
        )
        cuts = _pieces(p.channels, self.each_feature, self.each_tile)
        phases.append(
            correlate.bind_parts(
                [
                    POINTS * count * -(-p.channels // cuts[0]) * -(-features // cuts[1])
                    for _ in self.tile_parts
                    for features in self.feature_parts
                ],
                *(inputs, upstream, totals, flags, self.tiles, p.channels, p.features, count, *pitches, *cuts),
                *(self.each_tile, self.each_feature, kinds, self.group, self.half, self.most, self.blas),
            )
        )
        per, groups = max(1, ITEM_CHANNELS // (2 * count * self.each_feature)), -(-tiles // self.group)
        phases.append(
            gradient_quanta.bind_parts(
                [-(-p.channels // per)] * (groups * kinds),
                *(totals, result, count, per, pitches[2], self.each_feature, kinds),
                dtype="float64",
            )
        )
        order = []
        for i in range(tiles):
            order += [(phase, i) for phase in range(3)]
            for j in range(kinds):
                order.append((3, i * kinds + j))
                if (i + 1) % self.group == 0 or i == tiles - 1:
                    order.append((4, i // self.group * kinds + j))
        perform(_in_order(phases, order))
        return result

    def combine(self, quanta: Array, s: Array, t: Array) -> Array:
        """``dweight (F, C, 3, 3)`` of the quanta of all samples."""
        p, plan = self.problem, self.plan
        dweight = empty((p.features, p.channels, 9), "float64")
        scales = s * ldexp(1.0, -plan.left_bits), t * ldexp(1.0, -plan.right_bits)
        numbers = ldexp(1.0, -plan.right_bits), self.count, LANES
        perform(combine_gradient.bind(p.features // LANES, quanta, *scales, dweight, *numbers))
        return dweight.reshape((p.features, p.channels, 3, 3))


def _part_bytes(read: int) -> int:
    """Bytes of a part, if each part also reads so many bytes of the transformed weights or input."""
    return max(PART_BYTES, read // 4 if read > LARGE_BYTES else 0)


def _parts(count: int, each: int) -> list[int]:
    return [min(each, count - first) for first in range(0, count, each)]


def _pitch(rows: int, columns: int) -> int:
    """Distance of the points' matrices, an odd number of cache lines, so that they lie in different sets of a cache."""
    return (-(-rows * columns // LINE) | 1) * LINE


def _pieces(rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Rows and columns of the pieces of a product of matrices, of which each is an item."""
    while rows * columns * depth > MOST_PRODUCTS and max(rows, columns) >= 2 * LEAST_SIDE:
        if rows >= columns:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // 2)
    return rows, columns


def _matrices(pitches: Sequence[int]) -> list[Array]:
    """Room for the matrices of all points, for each of the pitches, from the beginning of a cache line on."""
    room = empty((POINTS * sum(pitches) + LINE,), "float64")
    start, found = -address_of(room) // 8 % LINE, []
    for pitch in pitches:
        found.append(room[start : start + POINTS * pitch])
        start += POINTS * pitch
    return found


def _in_order(phases: list[Bound], order: list[tuple[int, int]]) -> Bound:
    """One that runs the given parts of phases."""
    rows, keep = [phases[phase].rows[part] for phase, part in order], [phase.keep for phase in phases]
    return Bound(rows, keep, True, [phase.signature for phase in phases])


def _suits(problem: Any, plan: Plan, terms: int) -> bool:
    """Whether tiles can compute the problem: 3x3 windows at stride 1 that read all of the padded input, one group."""
    p, w = problem, problem.windows
    if w.kernel != (3, 3) or w.stride != (1, 1) or w.dilation != (1, 1) or p.groups != 1:
        return False
    whole = all(
        o + 2 == low + size + high for o, size, (low, high) in zip(w.count, p.spatial, p.padding, strict=True)
    )
    few = plan.left_count == 1 and plan.left_bits + plan.right_bits + (terms - 1).bit_length() <= MOST_BITS
    # Incomplete last tiles must not cost more than tiles save.
    pays = POINTS * prod(-(-size // OUTPUTS) for size in w.count) <= 0.6 * 9 * prod(w.count)
    return whole and few and pays and not (p.channels % MULTIPLE or p.features % MULTIPLE) and p.samples > 0


def _prepare(make: type[Any], asked: tuple[Any, Plan], terms: int) -> Any:
    problem, plan = asked
    blas = gemm_address("float64") if _suits(problem, plan, terms) else 0
    made = make(problem, plan, blas) if blas else None
    return made if made is not None and made.most >= FEWEST_TERMS else None


def prepare_forward(asked: tuple[Any, Plan], dtype: str) -> ExactForward | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactForward | None = _prepare(ExactForward, asked, asked[1].terms)
    return made


def prepare_gradient(asked: tuple[Any, Plan], dtype: str) -> ExactGradient | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactGradient | None = _prepare(ExactGradient, asked, min(asked[1].terms, GROUP_TERMS))
    return made
