"""The sizes of a convolution: an algorithm is chosen by them, and needs nothing else beside the arrays."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod

from ...backends.contractions.windows import PadWidths, Windows
from ..core.output_shape import Shape


def spatial_axes(x: Shape, weight: Shape, form: str) -> int:
    """The number of spatial axes of an input and a weight; ``form`` is that of the weight, for the message.

    Raises
    ------
    ValueError
        If there is none, if it is not the same in both, or if the kernel has size 0 along one.
    """
    if len(x) < 3 or len(weight) != len(x):
        raise ValueError(
            f"input (N, C, *spatial) and weight {form} must have the same number of axes, 3 or more; got shapes {x} "
            f"and {weight}"
        )
    if 0 in weight[2:]:
        raise ValueError(f"weight must have a kernel cell along each spatial axis, got shape {weight}")
    return len(x) - 2


@dataclass(frozen=True)
class Problem:
    """``x (N, *S, C)`` with ``weight (F, C/G, *K)`` to ``y (N, *O, F)``.

    Attributes
    ----------
    samples, channels, features, groups : int
    spatial : tuple of int
        ``S``.
    windows : Windows
        Positions of the windows in the padded input.
    padding : tuple of (int, int)
        Zeros before and after each axis.
    dtype : str
    rotated : bool
        Whether this is the `adjoint` of another convolution and the weight is that one's, ``(C, F/G, *K)``: its cells
        are read in reverse order and its first two axes swapped.
    algorithms : str
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
    algorithms: str = "any"

    def __hash__(self) -> int:
        # Computed once: prepared objects and choices are looked up by the problem in every call.
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

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
        """Number of products in the definition."""
        return prod(self.y_shape) * (self.channels // self.groups) * self.windows.cells

    @cached_property
    def adjoint(self) -> "Problem | None":
        """The convolution that maps ``dy`` to ``dx``, with the kernel rotated by 180 degrees; None where there is none.

        It exists for one group and stride 1, if no axis is padded by more than ``dilation * (kernel - 1)``.
        """
        w = self.windows
        most = [(k - 1) * d for k, d in zip(w.kernel, w.dilation, strict=True)]
        # Cells after the last window, which no window reads, have the gradient 0: there windows read zeros only.
        padding = tuple(
            (m - before, n - count + before)
            for m, n, count, (before, _) in zip(most, self.spatial, w.count, self.padding, strict=True)
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
