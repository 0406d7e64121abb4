"""Sizes of a convolution as compiled code reads them, and the memory layouts of inputs and weights.

Every convolution of one to three axes is written with three: missing ones have a single cell. The compiled functions
read sizes and strides from an array of integers, at the indices below.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .compiler import contiguous
from .window_offsets import Offsets

MOST_AXES = 3
# Indices of the first of three numbers, one for each axis.
INPUT, KERNEL, STRIDE, DILATION, OUTPUT, BEFORE = 0, 3, 6, 9, 12, 15
# Indices of single numbers: samples, channels, and the strides of the input's samples, first axis and channels.
SAMPLES, CHANNELS, SAMPLE_STEP, AXIS_STEP, CHANNEL_STEP = 18, 19, 20, 21, 24
LENGTH = 25


class ConvolutionProblem(Protocol):
    """Sizes of a convolution: see `xpnn.layers.convolution.problem.Problem`."""

    samples: int
    spatial: tuple[int, ...]
    channels: int
    features: int
    groups: int
    windows: Windows
    padding: PadWidths
    rotated: bool
    algorithms: str


@dataclass(frozen=True)
class Sizes:
    """A convolution of three axes: ``x (N, *S, C)`` to ``y (N, *O, F)``.

    Attributes
    ----------
    spatial, before, after : tuple of int
        Cells of the input along each axis, and zeros before and after them.
    place, missing : int
        The index of the first axis that the problem lacks, and how many it lacks.
    """

    samples: int
    channels: int
    features: int
    groups: int
    spatial: tuple[int, ...]
    windows: Windows
    before: tuple[int, ...]
    after: tuple[int, ...]
    place: int
    missing: int

    @classmethod
    def of(cls, problem: ConvolutionProblem, first: bool) -> "Sizes | None":
        """The sizes of a problem, None if it has more axes or its input no cells.

        Missing axes come ``first``, or after the first axis.
        """
        missing = MOST_AXES - len(problem.spatial)
        if missing < 0 or 0 in problem.spatial:
            return None
        w, place = problem.windows, 0 if first else 1

        def filled(values: tuple[int, ...], value: int) -> tuple[int, ...]:
            return (*values[:place], *(value,) * missing, *values[place:])

        windows = Windows(*(filled(each, 1) for each in (w.kernel, w.stride, w.dilation, w.count)))
        before, after = (filled(tuple(pair[side] for pair in problem.padding), 0) for side in (0, 1))
        spatial = filled(problem.spatial, 1)
        numbers = (problem.samples, problem.channels, problem.features, problem.groups)
        return cls(*numbers, spatial, windows, before, after, place, missing)

    @property
    def windows_of_sample(self) -> int:
        """Number of windows in a sample."""
        return prod(self.windows.count)

    @property
    def depth(self) -> int:
        """Terms of each sum, ``K*C/G``."""
        return self.windows.cells * self.channels // self.groups

    @property
    def multiply_adds(self) -> int:
        """Number of products in the definition."""
        return self.samples * self.windows_of_sample * self.features * self.depth

    @property
    def is_padded(self) -> bool:
        """Whether windows read zeros around the input."""
        return any((*self.before, *self.after))

    @property
    def padded(self) -> tuple[int, ...]:
        """Cells of the padded input."""
        return tuple(map(sum, zip(self.before, self.spatial, self.after, strict=True)))

    @property
    def is_pointwise(self) -> bool:
        """Whether each window is one cell, and the windows are all cells: the columns are the input."""
        w = self.windows
        return w.cells == 1 and w.count == self.spatial and not self.is_padded and all(s == 1 for s in w.stride)

    @cached_property
    def contiguous_strides(self) -> tuple[int, ...]:
        """Strides of a contiguous ``x (N, *S, C)``, in entries."""
        shape = (*self.spatial, self.channels)
        return tuple(prod(shape[axis:]) for axis in range(len(shape) + 1))

    @cached_property
    def unpadded(self) -> "Sizes":
        """The same without padding, for copies of the input."""
        return replace(self, before=(0,) * MOST_AXES, after=(0,) * MOST_AXES)

    @cached_property
    def within_padding(self) -> "Sizes":
        """The same of an input that has the padding already."""
        return replace(self.unpadded, spatial=self.padded)

    def table(self, strides: tuple[int, ...] | None = None) -> Offsets:
        """The numbers that compiled functions read; ``strides`` are those of ``x``, if it is not contiguous."""
        return _table(self, strides or self.contiguous_strides)


@lru_cache(maxsize=2048)
def _table(sizes: Sizes, strides: tuple[int, ...]) -> Offsets:
    w = sizes.windows
    rows = (sizes.spatial, w.kernel, w.stride, w.dilation, w.count, sizes.before)
    numbers = [number for row in rows for number in row]
    return np.array([*numbers, sizes.samples, sizes.channels, *strides], np.int64)


def flat_with_strides(x: Array, sizes: Sizes) -> tuple[Array, tuple[int, ...]]:
    """The entries of ``x (N, *S, C)`` in memory order as a vector, and the strides of five axes in it.

    An array with gaps is copied.
    """
    if not x.flags.c_contiguous:
        order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
        dense = x.transpose(order)
        if dense.flags.c_contiguous and dense.flags.aligned:
            steps = [0] * x.ndim
            for place, axis in enumerate(order):
                steps[axis] = prod(dense.shape[place + 1 :])
            place = 1 + sizes.place
            return dense.reshape(-1), (*steps[:place], *(0,) * sizes.missing, *steps[place:])
    return contiguous(x).reshape(-1), sizes.contiguous_strides


def weight_strides(weight: Array, problem: ConvolutionProblem) -> tuple[Array, int, tuple[int, int, int]]:
    """The entries of ``weight`` in memory order, the place of the first, and the strides of cells, channels, features.

    Cells are numbered row by row. A weight in another memory layout than these is copied: features, channels, cells;
    features, cells, channels; cells, channels, features.
    """
    cells = problem.windows.cells
    a, b = weight.shape[:2]
    axes = weight.ndim
    spatial = tuple(range(2, axes))
    if weight.flags.c_contiguous:
        numbers, steps = weight, (1, cells, b * cells)
    elif weight.transpose(*spatial, 1, 0).flags.c_contiguous:
        numbers, steps = weight.transpose(*spatial, 1, 0), (a * b, a, 1)
    elif weight.transpose(0, *spatial, 1).flags.c_contiguous:
        numbers, steps = weight.transpose(0, *spatial, 1), (b, 1, b * cells)
    else:
        numbers, steps = weight.copy(order="C"), (1, cells, b * cells)
    cell, second, first = steps
    if problem.rotated:
        return numbers.reshape(-1), (cells - 1) * cell, (-cell, first, second)
    return numbers.reshape(-1), 0, (cell, second, first)
