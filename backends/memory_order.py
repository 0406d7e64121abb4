"""The order of an array's axes in memory."""

from collections.abc import Sequence


def axes_in_memory(strides: Sequence[int]) -> tuple[int, ...]:
    """The axes from the one with the longest stride to the one with the shortest."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis])))


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The inverse of a permutation."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
