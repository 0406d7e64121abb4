"""A convolution as integers: what an algorithm is chosen by, and what it needs beside the arrays."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from ...backends.contractions.windows import PadWidths, Windows


@dataclass(frozen=True)
class Problem:
    """``x (N, *S, C)`` with ``weight (F, C/G, *K)`` to ``y (N, *O, F)``.

    Attributes
    ----------
    samples, channels, features, groups : int
    spatial : tuple of int
        ``S``.
    windows : Windows
        Where windows lie in the padded input.
    padding : tuple of (int, int)
        Zeros before and after each axis.
    dtype : str
    rotated : bool
        Whether the weight ``(C, F/G, *K)`` is that of the convolution whose input's gradient this is: its cells are
        taken in reverse, its first two axes the other way round.
    precision : str
        ``"direct"`` leaves out algorithms whose rounding error is larger than that of sums of products.
    """

    samples: int
    spatial: tuple[int, ...]
    channels: int
    features: int
    groups: int
    windows: Windows
    padding: PadWidths
    dtype: str
    rotated: bool = False
    precision: str = "float32"

    @property
    def x_shape(self) -> tuple[int, ...]:
        """``(N, *S, C)``."""
        return (self.samples, *self.spatial, self.channels)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """``(N, *O, F)``."""
        return (self.samples, *self.windows.count, self.features)

    @property
    def is_padded(self) -> bool:
        """Whether windows read zeros around the input."""
        return any(before or after for before, after in self.padding)

    @cached_property
    def multiply_adds(self) -> int:
        """Products of the definition."""
        return prod(self.y_shape) * (self.channels // self.groups) * self.windows.cells

    @cached_property
    def adjoint(self) -> "Problem | None":
        """The convolution that takes ``dy`` to ``dx``, with the kernel rotated; None where there is none.

        There is one for stride 1, where no axis has more padding than the kernel reaches over.
        """
        w = self.windows
        reach = [(k - 1) * d for k, d in zip(w.kernel, w.dilation, strict=True)]
        # Cells after the last window, which none reads, have the gradient 0: windows of zeros.
        padding = tuple(
            (r - before, n - count + before)
            for r, n, count, (before, _) in zip(reach, self.spatial, w.count, self.padding, strict=True)
        )
        if self.groups > 1 or any(s > 1 for s in w.stride) or any(side < 0 for pair in padding for side in pair):
            return None
        return replace(
            self,
            spatial=w.count,
            channels=self.features,
            features=self.channels,
            windows=replace(w, count=self.spatial),
            padding=padding,
            rotated=not self.rotated,
        )
