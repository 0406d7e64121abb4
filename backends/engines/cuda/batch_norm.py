"""Batch normalisation of rows of channels, in three launches each for forward and backward.

The kernels and their formulas are in `xpnn.backends.engines.cuda.batch_norm_source`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ....common.types import Array
from .batch_norm_source import SOURCE
from .compilation import MOST_ENTRIES, address, dense, loaded_cupy, rows
from .row_sums import BLOCK_COLUMNS, BLOCK_ROWS, split


@dataclass(frozen=True)
class Statistics:
    """An input as rows, and the statistics that normalised it.

    Attributes
    ----------
    rows : array
        The input ``(cells, C)``, a copy if its strides do not allow a view.
    step : int
        Stride of the rows, in entries.
    found : array
        ``(7, C)``: the two parts of the mean, ``near`` and ``rest``, inverse standard deviation, mean, variance, and
        scale and shift of ``y = (x - near) scale + shift``.
    """

    rows: Array
    step: int
    found: Array

    @property
    def mean(self) -> Array:
        """``(C,)``."""
        return self.found[3]

    @property
    def var(self) -> Array:
        """``(C,)``, biased: divided by the number of values."""
        return self.found[4]


class BatchNormKernels:
    """Batch normalisation of ``x (N, *S, C)``."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.number = np.dtype(dtype).type

    def forward(
        self, x: Array, weight: Array | None, bias: Array | None, given: tuple[Array, Array] | None, eps: float
    ) -> tuple[Array, Statistics]:
        """``y`` and its statistics: those of ``x``, or the given mean and variance."""
        cupy = loaded_cupy()
        shape, channels = x.shape, x.shape[-1]
        x, step = rows(x)
        count, affine = np.int64(len(x)), [dense(weight), dense(bias)]
        found = cupy.empty((7, channels), x.dtype)
        if given is not None:
            SOURCE.each("given", self.dtype, channels, *map(dense, given), *affine, found, self.number(eps), channels)
        else:
            parts, length = split(len(x))
            partial = cupy.empty((3, parts, channels), x.dtype)
            grid, block = (-(-channels // BLOCK_COLUMNS), parts), (BLOCK_COLUMNS, BLOCK_ROWS)
            sizes = (np.int64(length), channels, count)
            SOURCE.launch("moments", self.dtype, grid, block, address(x), partial, np.int64(step), *sizes)
            arguments = (self.number(eps), parts, *sizes)
            SOURCE.launch("statistics", self.dtype, grid[:1], block, partial, *affine, found, *arguments)
        y = cupy.empty(shape, x.dtype)
        SOURCE.each("normalise", self.dtype, y.size, address(x), found, y, np.int64(step), channels)
        return y, Statistics(x, step, found)

    def backward(
        self, dy: Array, known: Statistics, weight: Array | None, constant: bool, input_grad: bool
    ) -> tuple[Array | None, Array, Array]:
        """``(dx, dweight, dbias)`` for ``dy (N, *S, C)``; ``constant`` means that the statistics were given."""
        cupy = loaded_cupy()
        shape, channels = dy.shape, dy.shape[-1]
        dy, step = rows(dy)
        count = np.int64(len(dy))
        parts, length = split(len(dy))
        partial, found = cupy.empty((2, parts, channels), dy.dtype), cupy.empty((3, channels), dy.dtype)
        grid, block = (-(-channels // BLOCK_COLUMNS), parts), (BLOCK_COLUMNS, BLOCK_ROWS)
        steps = (np.int64(step), np.int64(known.step))
        sizes = (*steps, np.int64(length), channels, count)
        SOURCE.launch(
            "gradient_sums", self.dtype, grid, block, address(dy), address(known.rows), known.found, partial, *sizes
        )
        dweight, dbias = cupy.empty(channels, dy.dtype), cupy.empty(channels, dy.dtype)
        arguments = (dense(weight), dweight, dbias, found, int(constant), parts, channels, count)
        SOURCE.launch("gradients", self.dtype, grid[:1], block, partial, known.found, *arguments)
        if not input_grad:
            return None, dweight, dbias
        dx = cupy.empty(shape, dy.dtype)
        SOURCE.each(
            "normalise_back",
            self.dtype,
            dx.size,
            address(dy),
            address(known.rows),
            known.found,
            found,
            dx,
            *steps,
            channels,
        )
        return dx, dweight, dbias

    def can_track(self, running: tuple[Array, Array, Array], known: Statistics) -> bool:
        """Whether running mean, variance and number of batches have the shapes and dtypes that `track` accepts."""
        mean, var, batches = ((each.shape, each.dtype) for each in running)
        return mean == var == (known.mean.shape, known.found.dtype) and batches == ((), np.int64)

    def track(
        self, known: Statistics, running: tuple[Array, Array, Array], momentum: float | None
    ) -> tuple[Array, Array, Array]:
        """New running mean, variance and number of batches, moved towards those of a batch."""
        cupy, cells = loaded_cupy(), len(known.rows)
        mean, var = cupy.empty(len(running[0]), known.found.dtype), cupy.empty(len(running[0]), known.found.dtype)
        batches = cupy.empty((), np.int64)
        arguments = (self.number(momentum or 0.0), self.number(cells / (cells - 1)), int(momentum is None))
        arrays = (known.mean, known.var, *map(dense, running), mean, var, batches)
        SOURCE.each("track", self.dtype, len(mean), *arrays, *arguments)
        return mean, var, batches


@lru_cache(maxsize=1024)
def prepare(problem: tuple[int, int], dtype: str, ops: Any) -> BatchNormKernels | None:
    """Kernels for a number of rows, at least two, and of channels."""
    cells, channels = problem
    return BatchNormKernels(dtype) if cells > 1 and 0 < cells * channels < MOST_ENTRIES else None
