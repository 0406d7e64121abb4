"""The weight's gradient of a convolution in exact numerics by Winograd's tiles; see `exact_winograd`."""

from math import ldexp
from typing import Any

from ....common.types import Array
from ...recording.calls import empty
from .exact_gradient_jobs import combined_gradient, gradient_quanta
from .exact_products import correlate, judge_channels
from .exact_tiles import (
    GROUP_TERMS,
    ITEM_CHANNELS,
    OF_UPSTREAM,
    Plan,
    Tiles,
    in_order,
    matrices,
    parts,
    pieces,
    pitch_of,
    prepare,
)
from .exact_winograd_jobs import OUTPUTS, POINTS, inputs_by_channel, upstream_by_channel
from .pool import perform
from .winograd import Convolution


class ExactGradient(Tiles):
    """The weight's gradient of a convolution: see `exact_winograd`."""

    def __init__(self, problem: Convolution, plan: Plan, blas: int) -> None:
        super().__init__(problem, plan, blas, OF_UPSTREAM)
        size, wide = 8 * POINTS, self.count * problem.features
        self.cut(wide, size * max(problem.channels, wide) * self.tiles, size * problem.channels * wide)
        self.each_tile = min(self.each_tile, GROUP_TERMS // OUTPUTS**2)
        self.tile_parts = parts(self.tiles, self.each_tile)
        #: Parts of the tiles of a group.
        self.group = max(1, GROUP_TERMS // OUTPUTS**2 // self.each_tile) if len(self.feature_parts) == 1 else 1

    def quanta(self, x: Array, dy: Array, s: Array, t: Array) -> Array:
        """Whole numbers ``(9, C, count F)``, int64, of scales ``s (C,)`` and ``t (F,)``."""
        p, plan, count = self.problem, self.plan, self.count
        tiles, kinds = len(self.tile_parts), len(self.feature_parts)
        pitches = (
            pitch_of(self.each_tile, p.channels),
            pitch_of(self.each_tile, count * p.features),
            pitch_of(p.channels, count * self.each_feature),
        )
        inputs, upstream, totals = matrices(pitches)
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
        phases.append(judge_channels.bind_parts([POINTS] * tiles, *squares, flags, self.tiles, *pers, self.each_tile))
        cuts = pieces(p.channels, self.each_feature, self.each_tile)
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
        perform(in_order(phases, order))
        return result

    def combine(self, quanta: Array, s: Array, t: Array) -> Array:
        """``dweight (F, C, 3, 3)`` of the quanta of all samples."""
        unit = ldexp(1.0, -self.plan.right_bits)
        return combined_gradient(self.problem, quanta, s * ldexp(1.0, -self.plan.left_bits), t * unit, unit)


def prepare_gradient(asked: tuple[Any, Plan], dtype: str) -> ExactGradient | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactGradient | None = prepare(ExactGradient, asked, min(asked[1].terms, GROUP_TERMS))
    return made
