"""Batch normalisation of rows of channels: each of forward and backward reads the input twice."""

from dataclasses import dataclass

import numpy as np

from ....common.types import Array
from .batch_norm_jobs import (
    COMBINED,
    MEAN,
    SAMPLE_STEP,
    VAR,
    differentiate,
    given_statistics,
    gradient_sums,
    gradients,
    moments,
    normalise,
    statistics,
    track,
)
from .bound import Bound
from .compiler import contiguous
from .pool import perform
from .results import empty

# Longest row: its sums and statistics stay in the L1 cache.
ROW_LENGTH = 512
# Entries of a block: what is read twice is still in the L2 cache.
BLOCK_ENTRIES = 1 << 15


@dataclass(frozen=True)
class Statistics:
    """An input as rows, and the statistics that normalised it.

    Attributes
    ----------
    rows : array
        The input, several cells a row: ``(R, K)``.
    found : array
        ``(5, C)``: the two parts of the mean, ``near`` and ``correction``, inverse standard deviation, mean, variance.
    apply : array
        ``(3, K)``: for each column ``near``, scale and shift of ``y = (x - near) scale + shift``.
    relu : bool
        Whether ReLU followed.
    """

    rows: Array
    found: Array
    apply: Array
    relu: bool

    @property
    def mean(self) -> Array:
        """``(C,)``."""
        return self.found[MEAN]

    @property
    def var(self) -> Array:
        """``(C,)``, biased: divided by the number of values."""
        return self.found[VAR]


class BatchNorm:
    """Batch normalisation of ``x (N, *S, C)``, of which there are ``cells`` for each channel."""

    def __init__(self, cells: int, channels: int, dtype: str) -> None:
        self.cells, self.channels, self.dtype = cells, channels, np.dtype(dtype)
        most = max(1, ROW_LENGTH // channels)
        repeats = next(k for k in range(min(cells, most), 0, -1) if cells % k == 0)
        self.shape = (cells // repeats, repeats * channels)
        rows = max(1, BLOCK_ENTRIES // self.shape[1])
        self.per = -(-rows // SAMPLE_STEP) * SAMPLE_STEP
        self.blocks = -(-self.shape[0] // self.per)
        self.groups = -(-channels // COMBINED)
        self._nothing = np.empty(0, dtype)

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        given: tuple[Array, Array] | None,
        eps: float,
        relu: bool = False,
    ) -> tuple[Array, Statistics]:
        """``y`` and its statistics: those of ``x``, or the given mean and variance; with ``relu`` ReLU of ``y``."""
        rows, y = contiguous(x).reshape(self.shape), empty(x.shape, self.dtype)
        found, apply = empty((5, self.channels), self.dtype), empty((3, self.shape[1]), self.dtype)
        affine = (self._vector(weight), self._vector(bias), found, apply)
        if given is not None:
            jobs = [given_statistics.bind(1, *map(self._vector, given), eps, *affine)]
        else:
            partial = empty((self.blocks, 3, self.shape[1]), self.dtype)
            jobs = [
                moments.bind(self.blocks, rows, partial, self.per),
                statistics.bind(self.groups, partial, self.per, self.cells, eps, *affine),
            ]
        jobs.append(normalise.bind(self.blocks, rows, apply, y.reshape(self.shape), relu, self.per))
        perform(Bound.join(jobs))
        return y, Statistics(rows, found, apply, relu)

    def backward(
        self, dy: Array, known: Statistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)`` for ``dy (N, *S, C)``; ``constant`` means that the statistics were given.

        If ReLU followed, ``dy`` is the gradient of its result.
        """
        rows = contiguous(dy).reshape(self.shape)
        partial, slopes = empty((self.blocks, 2, self.shape[1]), self.dtype), empty((3, self.shape[1]), self.dtype)
        dweight, dbias = empty(self.channels, self.dtype), empty(self.channels, self.dtype)
        sums = (partial, known.relu, self.per)
        results = (self.cells, constant, dweight, dbias, slopes)
        jobs = [
            gradient_sums.bind(self.blocks, rows, known.rows, known.apply, *sums),
            gradients.bind(self.groups, partial, known.found, self._vector(weight), *results),
        ]
        dx = empty(dy.shape, self.dtype) if input_grad else None
        if dx is not None:
            to = (dx.reshape(self.shape), known.relu, self.per)
            jobs.append(differentiate.bind(self.blocks, rows, known.rows, known.apply, slopes, *to))
        perform(Bound.join(jobs))
        return dx, dweight, dbias

    def can_track(self, running: tuple[Array, Array, Array], known: Statistics) -> bool:
        """Whether running mean, variance and number of batches have the shapes and dtypes that `track` accepts."""
        mean, var, batches = ((each.shape, each.dtype) for each in running)
        return mean == var == ((self.channels,), self.dtype) and batches == ((), np.int64)

    def track(
        self, known: Statistics, running: tuple[Array, Array, Array], momentum: float | None
    ) -> tuple[Array, Array, Array]:
        """New running mean, variance and number of batches, moved towards those of a batch."""
        mean, var, batches = running
        new = empty(self.channels, self.dtype), empty(self.channels, self.dtype), empty((), np.int64)
        old = (self._vector(mean), self._vector(var), batches.reshape(1))
        factors = (momentum or 0.0, momentum is None, self.cells / (self.cells - 1))
        perform(track.bind(1, known.found, *old, new[0], new[1], new[2].reshape(1), *factors))
        return new

    def _vector(self, x: Array | None) -> Array:
        """An argument of a job; with no entry for None."""
        return self._nothing if x is None else contiguous(x)


def prepare(problem: tuple[int, int], dtype: str) -> BatchNorm | None:
    """Batch normalisation for a number of values of a channel, and of channels."""
    cells, channels = problem
    return BatchNorm(cells, channels, dtype) if dtype in ("float32", "float64") and cells and channels else None
