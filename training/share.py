"""Which part of the data a process computes: samples of each batch in training, whole batches in evaluation."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


def part_bounds(samples: int, sizes: Sequence[int]) -> list[int]:
    """Where the parts of a batch begin and end, for these relative sizes: from 0 to ``samples``."""
    bounds = [0, *accumulate(sizes)]
    return [samples * bound // bounds[-1] for bound in bounds]


def rank_bounds(samples: int, size: int) -> list[int]:
    """Where the parts of ``size`` processes begin and end in a batch: rank 0, which saves the run, has the most."""
    return [-(-samples * rank // size) for rank in range(size + 1)]


class Share(NamedTuple):
    """The share of one of ``size`` processes.

    Attributes
    ----------
    rank, size : int
    splits : bool
        Whether each has a part of every batch; else each has some of the batches, whole.
    """

    rank: int = 0
    size: int = 1
    splits: bool = True

    def batches(self, start: int, count: int) -> range:
        """The positions of this process's batches, of ``count``, without the first ``start``."""
        return range(start, count) if self.splits else range(start + self.rank, count, self.size)

    def bounds(self, samples: int) -> tuple[int, int]:
        """Where this process's samples begin and end in a batch of so many."""
        if not self.splits:
            return 0, samples
        found = rank_bounds(samples, self.size)
        return found[self.rank], found[self.rank + 1]


#: All of the data.
WHOLE = Share()
