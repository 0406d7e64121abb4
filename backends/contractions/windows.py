"""Sliding windows over the spatial axes of a channels-last array, as numbers only.

Convolution and pooling read an input ``(N, *spatial, C)`` through windows. Along each axis window ``o`` reads the cells
``o * stride + k * dilation`` for ``k = 0 .. kernel - 1``. So the cells that one kernel cell ``k`` reads in all windows
are a strided slice of the input. With these slices im2col, col2im and pooling are loops over the few cells of a kernel,
never over pixels, in functions of the standard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TypeAlias

#: Zeros before and after each spatial axis, as ``pad_width`` of `numpy.pad`.
PadWidths: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Windows:
    """Positions of windows: one entry per spatial axis in each field.

    Attributes
    ----------
    kernel : tuple of int
        Cells of a window.
    stride : tuple of int
        Input cells from one window to the next.
    dilation : tuple of int
        Input cells from one cell of a window to the next.
    count : tuple of int
        Windows along the axis: the output size.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    count: tuple[int, ...]

    @cached_property
    def cells(self) -> int:
        """Number of cells in a window."""
        return prod(self.kernel)

    @cached_property
    def extent(self) -> tuple[int, ...]:
        """Input cells along each axis from the first to the last that a window reads."""
        return tuple(
            (o - 1) * s + (k - 1) * d + 1 if o else 0
            for o, s, k, d in zip(self.count, self.stride, self.kernel, self.dilation, strict=True)
        )

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """One index into ``(N, *spatial, C)`` per kernel cell, in row-major order.

        Each selects ``(N, *count, C)``: what that kernel cell reads in every window.
        """
        for cell in product(*map(range, self.kernel)):
            spatial = tuple(
                slice(k * d, k * d + (o - 1) * s + 1, s) if o else slice(0, 0, s)
                for k, d, o, s in zip(cell, self.dilation, self.count, self.stride, strict=True)
            )
            yield (slice(None), *spatial, slice(None))
