"""Windows over an input, found by walking along its axes, and the types of all reference implementations."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np

# A NumPy array. Its stubs do not accept an index that is joined from several parts.
Host: TypeAlias = Any
Results: TypeAlias = dict[str, Host]
PaddingPairs: TypeAlias = list[tuple[int, int]]
Index: TypeAlias = tuple[int, ...]
#: Returns the gradient of an output for its shape.
Upstream: TypeAlias = Callable[[tuple[int, ...]], Host]


def zeros(shape: Any, dtype: Any = np.float64) -> Host:
    """An array for sums."""
    return np.zeros(shape, dtype=dtype)


def wide(array: Any) -> Host:
    """The same numbers in float64."""
    return np.asarray(array, dtype=np.float64)


def per_axis(value: Any, axes: int) -> list[int]:
    """One number for each axis."""
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)] * axes


def padding_pairs(
    padding: Any, spatial: Sequence[int], kernel: list[int], stride: list[int], dilation: list[int]
) -> PaddingPairs:
    """The padding before and after each axis; an odd number has one more cell after, with ``"same_lower"`` before."""
    if padding == "valid":
        return [(0, 0)] * len(spatial)
    if padding in ("same", "same_lower"):
        pairs = []
        for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
            total = 0
            # The least padding with which ceil(n / s) windows fit.
            while n + total - d * (k - 1) - 1 < s * ((n + s - 1) // s - 1):
                total += 1
            few = total // 2
            pairs.append((few, total - few) if padding == "same" else (total - few, few))
        return pairs
    given = padding if isinstance(padding, Sequence) else [padding] * len(spatial)
    return [(p[0], p[1]) if isinstance(p, Sequence) else (p, p) for p in given]


def window_starts(
    n: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool = False
) -> list[int]:
    """Where the windows of an axis of ``n`` cells start; negative in the padding."""
    before, after = pad
    last = dilation * (kernel - 1)
    starts, start = [], -before
    if start + last >= n + after:
        raise ValueError("the window is larger than the padded input")
    while start + last < n + after:
        starts.append(start)
        start += stride
    if ceil_mode:
        # One more window if cells remain, except if it starts after the input.
        if starts[-1] + last < n + after - 1:
            starts.append(start)
        if starts[-1] >= n:
            starts.pop()
    return starts


class Walk:
    """All windows over an input ``(N, C, *S)``, and the cells of each.

    ``padded_by_pairs`` says whether the padding was given as pairs of numbers.
    """

    def __init__(
        self, spatial: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
    ) -> None:
        axes = len(spatial)
        self.spatial, self.kernel, self.dilation = spatial, per_axis(kernel, axes), per_axis(dilation, axes)
        self.stride = self.kernel if stride is None else per_axis(stride, axes)
        self.pads = padding_pairs(padding, spatial, self.kernel, self.stride, self.dilation)
        self.padded_by_pairs = not isinstance(padding, int | str) and any(isinstance(p, Sequence) for p in padding)
        axis = zip(spatial, self.kernel, self.stride, self.pads, self.dilation, strict=True)
        self.starts = [window_starts(*sizes, ceil_mode) for sizes in axis]
        self.count = tuple(map(len, self.starts))

    def cells(self, window: Index) -> Iterator[tuple[Index, Index]]:
        """Pairs of a kernel cell and the input cell that it reads, in row-major order, without those in the padding."""
        for cell in product(*map(range, self.kernel)):
            at = tuple(s[o] + k * d for s, o, k, d in zip(self.starts, window, cell, self.dilation, strict=True))
            if all(0 <= i < n for i, n in zip(at, self.spatial, strict=True)):
                yield cell, at

    def __iter__(self) -> Iterator[tuple[Index, list[tuple[Index, Index]]]]:
        for window in np.ndindex(*self.count):
            yield window, list(self.cells(window))
