"""Sums of rows, and largest magnitudes of channels and of samples, in exact numerics: see `exact_sums`."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous
from .exact_lanes import over
from .exact_numbers import contraction_scale
from .exact_sums import COMBINED, ONE_SLICE_TERMS, Rows, finish, largest, magnitudes, set_factors, sums
from .jobs import INT, bind_phases, job, read, write
from .lanes import Code, vectorised
from .pool import perform

# Entries of a sample that an item reads.
SAMPLE_ENTRIES = 1 << 16
# Entries of a vector. The maxima are in memory, and are read and written once for each.
LENGTHS = (32, 8, 1)


class ExactRows:
    """Sums and largest magnitudes of the columns of ``cells`` rows of channels."""

    def __init__(self, cells: int, channels: int, dtype: str) -> None:
        self.rows, self.dtype = Rows(cells, channels), dtype

    def sums(self, x: Array) -> Array:
        """`ExactContractions.sum` of ``x (..., C)`` over all axes but the last: ``(C,)``."""
        return self._perform(x, sums=True)

    def largest(self, x: Array) -> Array:
        """The largest magnitude in each channel of ``x (..., C)``: ``(C,)``; NaN if there is one."""
        return self._perform(x)

    def scales(self, x: Array) -> Array:
        """`Splitting.scale` of each channel of ``x (..., C)``: ``(C,)``."""
        return self._perform(x, scales=True)

    def _perform(self, x: Array, scales: bool = False, sums: bool = False) -> Array:
        rows = self.rows
        x, out = contiguous(x).reshape(rows.shape), empty((rows.channels,), np.float64)
        words = empty((rows.blocks, rows.shape[1]), np.int64)
        partial = empty((rows.blocks, 2, rows.shape[1]) if sums else (0, 0, 0), np.float64)
        factors = empty((1, rows.shape[1]), np.float64)
        phases = [(magnitudes, rows.blocks), (largest, rows.chunks)]
        if scales or sums:
            phases.append((set_factors, rows.chunks))
        if sums:
            phases += [(_SUMS, rows.blocks), (finish, rows.chunks)]
        numbers = rows.per, int(rows.cells > ONE_SLICE_TERMS), rows.unit
        perform(bind_phases(phases, x, words, partial, factors, out, *numbers, dtype=self.dtype))
        return out


_SUMS = sums


@vectorised
def _magnitudes(code: Code, x: Any, first: Any, count: Any, out: Any, to: Any) -> None:
    for lanes, at in over(code, count, LENGTHS):
        bits = lanes.magnitude_bits(lanes.read(x, code.add(first, at)))
        lanes.store(lanes.larger_word(bits, lanes.load(out, to)), out, to)


@job(read(2), write(2, "int64"), write(1, "float64"), INT, INT, contract=False)
def sample_magnitudes(item: Any, x: Any, words: Any, out: Any, blocks: Any, is_scale: Any) -> None:
    """The bits of the largest magnitudes, of each lane, in a part of a sample."""
    sample, block = item // blocks, item % blocks
    first, stop = block * SAMPLE_ENTRIES, min((block + 1) * SAMPLE_ENTRIES, x.shape[1])
    words[item] = 0
    _magnitudes(x, sample * x.shape[1] + first, stop - first, words, item * words.shape[1])


@job(read(2), write(2, "int64"), write(1, "float64"), INT, INT, contract=False)
def largest_of_sample(item: Any, x: Any, words: Any, out: Any, blocks: Any, is_scale: Any) -> None:
    """The largest magnitude of each of `COMBINED` samples, or its scale."""
    found = out.view(np.int64)
    for n in range(item * COMBINED, min((item + 1) * COMBINED, out.shape[0])):
        found[n] = 0
        for block in range(n * blocks, (n + 1) * blocks):
            for lane in range(words.shape[1]):
                found[n] = max(found[n], words[block, lane])
        if is_scale != 0:
            out[n] = contraction_scale(out[n])


class ExactSamples:
    """Largest magnitudes of samples of ``size`` numbers."""

    def __init__(self, samples: int, size: int, dtype: str) -> None:
        self.shape, self.dtype = (samples, size), dtype
        self.blocks = -(-size // SAMPLE_ENTRIES)

    def largest(self, x: Array) -> Array:
        """The largest magnitude in each sample of ``x (N, ...)``: ``(N,)``; NaN if there is one."""
        return self._perform(x, False)

    def scales(self, x: Array) -> Array:
        """`Splitting.scale` of each sample of ``x (N, ...)``: ``(N,)``."""
        return self._perform(x, True)

    def _perform(self, x: Array, is_scale: bool) -> Array:
        out = empty((self.shape[0],), np.float64)
        words = empty((self.shape[0] * self.blocks, LENGTHS[0]), np.int64)
        phases = [(sample_magnitudes, len(words)), (largest_of_sample, -(-self.shape[0] // COMBINED))]
        x = contiguous(x).reshape(self.shape)
        perform(bind_phases(phases, x, words, out, self.blocks, int(is_scale), dtype=self.dtype))
        return out


def prepare_rows(problem: tuple[int, int], dtype: str) -> ExactRows | None:
    """Sums and magnitudes of columns, for numbers of rows and of channels; None if there are none."""
    cells, channels = problem
    if dtype not in ("float32", "float64") or not cells * channels:
        return None
    return ExactRows(cells, channels, dtype)


def prepare_samples(problem: tuple[int, int], dtype: str) -> ExactSamples | None:
    """Magnitudes of samples, for numbers of samples and of their entries; None if there are none."""
    samples, size = problem
    if dtype not in ("float32", "float64") or not samples * size:
        return None
    return ExactSamples(samples, size, dtype)
