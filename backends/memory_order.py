"""The axes of an array in the order of its memory."""

from collections.abc import Sequence


def axes_in_memory(steps: Sequence[int]) -> tuple[int, ...]:
    """The axes from the one with the longest step in memory to the one with the shortest."""
    return tuple(sorted(range(len(steps)), key=lambda axis: -abs(steps[axis])))


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
