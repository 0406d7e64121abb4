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

from math import ldexp
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .bound import Bound
from .exact_products import judge_tiles, multiply
from .exact_spoiled import spoiled
from .exact_tiles import ITEM_CHANNELS, OF_KERNEL, Plan, Tiles, in_order, matrices, pieces, pitch_of, prepare
from .exact_winograd_jobs import LANES, POINTS, inputs_by_tile, outputs, weights
from .pool import perform
from .winograd import Convolution


class ExactForward(Tiles):
    """Forward of a convolution by tiles."""

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
        y, pitches = (
            empty(p.y_shape, "float64"),
            (
                pitch_of(self.each_tile, p.channels),
                pitch_of(p.channels, wide),
                pitch_of(self.each_tile, wide),
            ),
        )
        inputs, kernels, products = matrices(pitches)
        per, per_block = max(1, ITEM_CHANNELS // p.channels), max(1, ITEM_CHANNELS // (64 * p.channels))
        each_item = -(-self.each_tile // per)
        left, right = (
            empty((tiles * each_item, POINTS, LANES), "float64"),
            empty((p.features // LANES, POINTS), "float64"),
        )
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
        cuts = pieces(self.each_tile, wide, p.channels)
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
        perform(Bound.join([in_order(phases, order), marked]))
        return y


def prepare_forward(asked: tuple[Any, Plan], dtype: str) -> ExactForward | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactForward | None = prepare(ExactForward, asked, asked[1].terms)
    return made
