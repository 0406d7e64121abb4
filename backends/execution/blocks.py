"""Cutting a batch into blocks, which depends on shapes only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...common.types import Array, Namespace
from ..contractions.windows import Windows

# The most arrays that CuPy joins without a table of their addresses, which it copies from the host.
MOST_JOINED = 8


@dataclass(frozen=True)
class Block:
    """Some samples, or some rows (cells of the first spatial axis of the output) of one."""

    samples: slice
    rows: slice

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.samples.stop - self.samples.start)

    def windows(self, windows: Windows) -> Windows:
        """The windows of this block only."""
        rows = self.rows.stop - self.rows.start
        return windows if rows == windows.count[0] else replace(windows, count=(rows, *windows.count[1:]))

    def reach(self, windows: Windows) -> tuple[int, int]:
        """The first cell along the first axis of a padded input that the block reads, and the one after the last."""
        first = self.rows.start * windows.stride[0]
        return first, first + self.windows(windows).extent[0]


def even_slices(n: int, count: int) -> list[slice]:
    """``count`` slices of ``range(n)`` of nearly equal length, at least one."""
    count = max(1, count)
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]


def cut_batch(n: int, rows: int, most: int) -> list[Block]:
    """``n`` samples of ``rows`` rows in blocks of about ``most`` rows at most; at least one, so that N = 0 works."""
    if not n or most >= rows:
        samples = max(1, most // max(rows, 1))
        return [Block(part, slice(0, rows)) for part in even_slices(n, -(-n // samples))]
    strips = even_slices(rows, -(-rows // max(1, most)))
    return [Block(slice(i, i + 1), strip) for i in range(n) for strip in strips]


def concat_all(parts: Sequence[Array], axis: int, xp: Namespace) -> Array:
    """``concat`` of any number of arrays, a few at a time, so that CuPy copies nothing from the host."""
    parts = list(parts)
    while len(parts) > 1:
        groups = [parts[i : i + MOST_JOINED] for i in range(0, len(parts), MOST_JOINED)]
        parts = [group[0] if len(group) == 1 else xp.concat(group, axis=axis) for group in groups]
    return parts[0]


def whole_batch(n: int, windows: Windows) -> Block:
    """One block of all ``n`` samples."""
    return Block(slice(0, n), slice(0, windows.count[0]))
