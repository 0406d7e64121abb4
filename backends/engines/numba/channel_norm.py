"""Batch, group and instance normalisation: each of forward and backward reads the input twice."""

from typing import NamedTuple

import numpy as np

from ....common.types import Array
from ...kept_calls import kept_calls
from ...recording.calls import empty
from .bound import Bound
from .channel_norm_backward import add_samples, differentiate, gradient_sums, gradients
from .channel_norm_forward import MEAN, SAMPLE_STEP, VAR, given_statistics, moments, normalise, statistics, track
from .compiler import contiguous
from .pool import perform

# Longest row: its sums and statistics stay in the L1 cache.
ROW_LENGTH = 512
# Entries of a block: what is read twice is still in the L2 cache.
BLOCK_ENTRIES = 1 << 15
# Channels whose sums an item combines, if a channel is a group of its own.
COMBINED = 64


class Statistics(NamedTuple):
    """An input as rows, and the statistics that normalised it.

    Attributes
    ----------
    rows : array
        The input, several cells a row: ``(N R, K)``. In batch normalisation ``N`` is 1 here.
    found : array
        ``(N, 5, C)``: the two parts of the mean, ``near`` and ``correction``, inverse standard deviation, mean,
        variance.
    apply : array
        ``(N, 3, K)``: for each column ``near``, scale and shift of ``y = (x - near) scale + shift``.
    relu : bool
        Whether ReLU followed.
    by_channel : bool
        Whether all samples share their statistics.
    """

    rows: Array
    found: Array
    apply: Array
    relu: bool
    by_channel: bool

    @property
    def mean(self) -> Array:
        """``(N, C)``, or ``(C,)`` in batch normalisation."""
        return self._of(MEAN)

    @property
    def var(self) -> Array:
        """``(N, C)``, or ``(C,)`` in batch normalisation; biased: divided by the number of values."""
        return self._of(VAR)

    def _of(self, row: int) -> Array:
        return self.found[0, row] if self.by_channel else self.found[:, row]


class ChannelNorm:
    """Normalisation of ``x (N, *S, C)`` with ``cells`` values of each channel of a sample.

    Groups of channels share their statistics. Batch normalisation has one sample, which is the whole batch, and as many
    groups as channels.
    """

    #: Whether `forward` computes ReLU too.
    rectifies = True

    def __init__(self, samples: int, cells: int, channels: int, groups: int, dtype: str, by_channel: bool) -> None:
        self.samples, self.cells, self.channels, self.dtype = samples, cells, channels, np.dtype(dtype)
        self.by_channel = by_channel
        most = max(1, ROW_LENGTH // channels)
        repeats = next(k for k in range(min(cells, most), 0, -1) if cells % k == 0)
        rows, columns = cells // repeats, repeats * channels
        per = -(-max(1, BLOCK_ENTRIES // columns) // SAMPLE_STEP) * SAMPLE_STEP
        blocks = -(-rows // per)
        self.shape, self.cut = (samples * rows, columns), (blocks, rows, per)
        self.blocks = samples * blocks
        # Channels of a group, and channels whose sums an item combines.
        self.width = channels // groups
        self.chunk = COMBINED if self.width == 1 else channels
        self.chunks = samples * -(-channels // self.chunk)
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
        found = empty((self.samples, 5, self.channels), self.dtype)
        apply = empty((self.samples, 3, self.shape[1]), self.dtype)
        affine = (self._vector(weight), self._vector(bias), found, apply)
        if given is not None:
            jobs = [given_statistics.bind(1, *map(self._vector, given), eps, *affine)]
        else:
            partial = empty((self.blocks, 3, self.shape[1]), self.dtype)
            sizes = (self.cut[2], self.cells, self.width, self.chunk)
            jobs = [
                moments.bind(self.blocks, rows, partial, *self.cut),
                statistics.bind(self.chunks, partial, *sizes, eps, *affine),
            ]
        jobs.append(normalise.bind(self.blocks, rows, apply, y.reshape(self.shape), relu, *self.cut))
        perform(Bound.join(jobs))
        return y, Statistics(rows, found, apply, relu, self.by_channel)

    def scales(self, weight: Array | None, bias: Array | None, given: tuple[Array, Array], eps: float) -> Array:
        """What `apply` multiplies by and adds, for a given mean and variance."""
        found = empty((self.samples, 5, self.channels), self.dtype)
        apply = empty((self.samples, 3, self.shape[1]), self.dtype)
        affine = (self._vector(weight), self._vector(bias), found, apply)
        perform(given_statistics.bind(1, *map(self._vector, given), eps, *affine))
        return apply

    def apply(self, x: Array, scales: Array, relu: bool = False) -> Array:
        """``y`` of `forward` with the mean and variance for which `scales` were computed."""
        rows, y = contiguous(x).reshape(self.shape), empty(x.shape, self.dtype)
        perform(normalise.bind(self.blocks, rows, scales, y.reshape(self.shape), relu, *self.cut))
        return y

    def backward(
        self, dy: Array, known: Statistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)`` for ``dy (N, *S, C)``; ``constant`` means that the statistics were given.

        If ReLU followed, ``dy`` is the gradient of its result.
        """
        arrays = (dy, known.rows, known.found, known.apply, weight)
        gradients: tuple[Array | None, Array, Array] = _backward(*arrays, self, known.relu, constant, input_grad)
        return gradients

    def _backward(
        self,
        dy: Array,
        x: Array,
        found: Array,
        apply: Array,
        weight: Array | None,
        relu: bool,
        constant: bool,
        input_grad: bool,
    ) -> tuple[Array | None, Array, Array]:
        rows, columns = contiguous(dy).reshape(self.shape), self.shape[1]
        partial, shares = (
            empty((n, 2, c), self.dtype) for n, c in ((self.blocks, columns), (self.samples, self.channels))
        )
        slopes, sizes = empty((self.samples, 3, columns), self.dtype), (self.cells, self.width, self.chunk, constant)
        jobs = [
            gradient_sums.bind(self.blocks, rows, x, apply, partial, relu, *self.cut),
            gradients.bind(self.chunks, partial, found, self._vector(weight), *sizes, shares, slopes),
        ]
        total = shares[0]
        if self.samples > 1:
            total = empty((2, self.channels), self.dtype)
            jobs.append(add_samples.bind(1, shares, total))
        dx = empty(dy.shape, self.dtype) if input_grad else None
        if dx is not None:
            to = (dx.reshape(self.shape), relu, *self.cut)
            jobs.append(differentiate.bind(self.blocks, rows, x, apply, slopes, *to))
        perform(Bound.join(jobs))
        return dx, total[0], total[1]

    def can_track(self, running: tuple[Array, Array, Array], known: Statistics) -> bool:
        """Whether running mean, variance and number of batches have the shapes and dtypes that `track` accepts."""
        mean, var, batches = ((each.shape, each.dtype) for each in running)
        return mean == var == ((self.channels,), self.dtype) and batches == ((), np.int64)

    def track(
        self, known: Statistics, running: tuple[Array, Array, Array], momentum: float | None
    ) -> tuple[Array, Array, Array]:
        """New running mean, variance and number of batches, moved towards those of a batch."""
        new: tuple[Array, Array, Array] = _track(known.found, *running, self, momentum)
        return new

    def _track(
        self, found: Array, mean: Array, var: Array, batches: Array, momentum: float | None
    ) -> tuple[Array, Array, Array]:
        new = empty(self.channels, self.dtype), empty(self.channels, self.dtype), empty((), np.int64)
        old = (self._vector(mean), self._vector(var), batches.reshape(1))
        factors = (momentum or 0.0, momentum is None, self.cells / (self.cells - 1))
        perform(track.bind(1, found, *old, new[0], new[1], new[2].reshape(1), *factors))
        return new

    def _vector(self, x: Array | None) -> Array:
        """An argument of a job; with no entry for None."""
        return self._nothing if x is None else contiguous(x)


@kept_calls(5)
def _backward(
    dy: Array, x: Array, found: Array, apply: Array, weight: Array | None, norm: ChannelNorm, *settings: bool
) -> tuple[Array | None, Array, Array]:
    return norm._backward(dy, x, found, apply, weight, *settings)


@kept_calls(4)
def _track(
    found: Array, mean: Array, var: Array, batches: Array, norm: ChannelNorm, momentum: float | None
) -> tuple[Array, Array, Array]:
    return norm._track(found, mean, var, batches, momentum)


def prepare_batch_norm(problem: tuple[int, int], dtype: str) -> ChannelNorm | None:
    """Batch normalisation for a number of values of a channel, and of channels."""
    cells, channels = problem
    return _prepare(1, cells, channels, channels, dtype, by_channel=True)


def prepare_group_norm(problem: tuple[int, int, int, int], dtype: str) -> ChannelNorm | None:
    """Group normalisation for numbers of samples, of values of a channel of a sample, of channels and of groups.

    None for groups of one value, whose gradient is a difference of equal numbers: their roundings would differ here.
    """
    _, cells, channels, groups = problem
    return None if cells * channels == groups else _prepare(*problem, dtype, by_channel=False)


def _prepare(samples: int, cells: int, channels: int, groups: int, dtype: str, by_channel: bool) -> ChannelNorm | None:
    if dtype not in ("float32", "float64") or not samples * cells * channels:
        return None
    return ChannelNorm(samples, cells, channels, groups, dtype, by_channel)
