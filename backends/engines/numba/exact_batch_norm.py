"""Batch normalisation in exact numerics: forward reads the input five times, backward three times."""

from dataclasses import dataclass

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous
from .exact_batch_norm_backward import (
    differentiate,
    gradient_magnitudes,
    gradient_sums,
    set_scales,
    set_slopes,
)
from .exact_batch_norm_jobs import (
    FOUND_ROWS,
    MEAN,
    SLOPE_ROWS,
    TABLE_ROWS,
    VAR,
    begin,
    centred_sums,
    extremes,
    normalise,
    plain_sums,
    set_correction,
    set_near,
    set_statistics,
    square_sums,
    track,
)
from .exact_sums import ONE_SLICE_TERMS, Rows
from .jobs import bind_phases
from .pool import perform


@dataclass(frozen=True)
class ExactStatistics:
    """An input as rows, what normalised it, and the statistics of its channels."""

    rows: Array
    table: Array
    found: Array

    @property
    def mean(self) -> Array:
        """``(C,)``, float64."""
        return self.found[MEAN]

    @property
    def var(self) -> Array:
        """``(C,)``, float64; biased: divided by the number of values."""
        return self.found[VAR]


class ExactBatchNorm:
    """Normalisation of ``x (N, *S, C)``: float32 as it is stored, or float64. All else is float64."""

    def __init__(self, cells: int, channels: int, dtype: str) -> None:
        self.rows, self.dtype = Rows(cells, channels), dtype
        self.numbers = self.rows.per, cells, int(cells > ONE_SLICE_TERMS), self.rows.unit
        self._nothing = np.empty(0)

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        given: tuple[Array, Array] | None,
        eps: float,
        relu: bool = False,
    ) -> tuple[Array, ExactStatistics]:
        """``y`` and its statistics: those of ``x``, or the given mean and variance; with ``relu`` ReLU of ``y``."""
        shape, blocks, chunks = self.rows.shape, self.rows.blocks, self.rows.chunks
        rows, y = contiguous(x).reshape(shape), empty(x.shape, self.dtype)
        table, found = (empty(size, np.float64) for size in ((TABLE_ROWS, shape[1]), (FOUND_ROWS, self.rows.channels)))
        partial = empty((blocks, 2, shape[1]) if given is None else (0, 0, 0), np.float64)
        phases = [(set_statistics, chunks), (normalise, blocks)]
        if given is None:
            phases[:0] = [
                (extremes, blocks),
                (begin, chunks),
                (plain_sums, blocks),
                (set_near, chunks),
                (centred_sums, blocks),
                (set_correction, chunks),
                (square_sums, blocks),
            ]
        vectors = [self._vector(each) for each in (weight, bias, *(given or (None, None)))]
        arrays = (rows, y.reshape(shape), table, found, partial, *vectors)
        perform(bind_phases(phases, *arrays, int(relu), *self.numbers, eps, dtype=self.dtype))
        return y, ExactStatistics(rows, table, found)

    def backward(
        self, dy: Array, known: ExactStatistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)`` for ``dy (N, *S, C)``; ``constant`` means that the statistics were given."""
        shape, blocks, chunks = self.rows.shape, self.rows.blocks, self.rows.chunks
        rows = contiguous(dy).reshape(shape)
        slopes, totals = (empty(size, np.float64) for size in ((SLOPE_ROWS, shape[1]), (2, self.rows.channels)))
        partial = empty((blocks, 4, shape[1]), np.float64)
        phases = [
            (gradient_magnitudes, blocks),
            (set_scales, chunks),
            (gradient_sums, blocks),
            (set_slopes, chunks),
        ]
        dx = None
        if input_grad:
            dx = empty(dy.shape, self.dtype)
            phases.append((differentiate, blocks))
        to = empty((0, 0), self.dtype) if dx is None else dx.reshape(shape)
        arrays = (rows, known.rows, to, known.table, slopes, partial, self._vector(weight), totals)
        perform(bind_phases(phases, *arrays, int(constant), *self.numbers, dtype=self.dtype))
        return dx, totals[1], totals[0]

    def can_track(self, running: tuple[Array, Array, Array], known: ExactStatistics) -> bool:
        """Whether running mean, variance and number of batches have the shapes and dtypes that `track` accepts."""
        mean, var, batches = ((each.shape, each.dtype) for each in running)
        return mean == var == ((self.rows.channels,), np.float32) and batches == ((), np.int64)

    def track(
        self, known: ExactStatistics, running: tuple[Array, Array, Array], momentum: float | None
    ) -> tuple[Array, Array, Array]:
        """New running mean, variance and number of batches, moved towards those of a batch."""
        mean, var, batches = running
        new = tuple([empty(mean.shape, np.float32) for _ in range(2)])
        counted, cells = empty((), np.int64), self.rows.cells
        old = contiguous(mean), contiguous(var), batches.reshape(1)
        factors = momentum or 0.0, int(momentum is None), cells / (cells - 1)
        perform(track.bind(1, known.found, *old, *new, counted.reshape(1), *factors, dtype="float64"))
        return new[0], new[1], counted

    def _vector(self, x: Array | None) -> Array:
        """An argument of a job; with no entry for None."""
        return self._nothing if x is None else contiguous(x)


def prepare(problem: tuple[int, int], dtype: str) -> ExactBatchNorm | None:
    """Batch normalisation for a number of values of a channel, and of channels; None if there is none."""
    cells, channels = problem
    if dtype not in ("float32", "float64") or not cells * channels:
        return None
    return ExactBatchNorm(cells, channels, dtype)
