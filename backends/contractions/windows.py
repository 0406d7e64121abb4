"""Sliding windows over the spatial axes of a channels-last array, as numbers only.

Convolution and pooling see an input of shape ``(N, *spatial, C)`` through windows: window ``o`` reads,
along each axis, the cells ``o * stride + k * dilation`` for ``k = 0 .. kernel - 1``. Seen from a kernel
cell instead of from a window, the cells that ``k`` reads in all windows are one strided slice. That
slice is the whole of im2col, col2im and pooling in standard array operations: a loop over the few
cells of a kernel, never over pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod


@dataclass(frozen=True)
class Windows:
    """Where windows lie: one entry per spatial axis in each field.

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
        """Input cells along each axis that the windows reach over, from the first to the last."""
        return tuple(
            (o - 1) * s + (k - 1) * d + 1 if o else 0
            for o, s, k, d in zip(self.count, self.stride, self.kernel, self.dilation, strict=True)
        )

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """One index into ``(N, *spatial, C)`` per kernel cell, in row-major order.

        Each picks ``(N, *count, C)``: what that cell of the kernel reads in every window.
        """
        for cell in product(*map(range, self.kernel)):
            spatial = tuple(
                slice(k * d, k * d + (o - 1) * s + 1, s) if o else slice(0, 0, s)
                for k, d, o, s in zip(cell, self.dilation, self.count, self.stride, strict=True)
            )
            yield (slice(None), *spatial, slice(None))
