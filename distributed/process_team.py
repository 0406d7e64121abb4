"""The ranks of a group as the workers of a batch, for exact numerics; see `xpnn.backends.execution.team`."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..common.types import Array
from .group import Group


class ProcessTeam:
    """This rank's `Team`: a batch of which each rank has some consecutive samples.

    Parameters
    ----------
    group : Group
    bounds : sequence of int
        Where the parts of the ranks begin and end in the batch: ``size + 1`` numbers.
    """

    def __init__(self, group: Group, bounds: Sequence[int]) -> None:
        self._group = group
        self._start, self._own = bounds[group.rank], bounds[group.rank + 1] - bounds[group.rank]
        self._samples = bounds[-1]
        self._none_is_empty = all(a < b for a, b in pairwise(bounds))

    def max(self, array: Array) -> Array:
        """Elementwise maximum over the ranks; NaN wins."""
        return self._group.all_reduce(array, "max")

    def sum(self, array: Array) -> Array:
        """Elementwise sum over the ranks."""
        return self._group.all_reduce(array, "sum")

    def rows(self, n: int) -> int:
        """Total over the ranks."""
        return self._place(n)[1]

    def slice(self, n: int) -> tuple[int, int]:
        """Number of rows of the ranks before this one, and of all ranks."""
        return self._place(n)

    def _place(self, n: int) -> tuple[int, int]:
        """Where ``n`` rows begin, and how many there are: without an exchange, because each sample has as many rows.

        A rank without samples can't tell how many, so then all ask the others.
        """
        if self._none_is_empty:
            each, rest = divmod(n, self._own)
            if rest:
                raise ValueError(
                    f"{n} rows of {self._own} samples: with a group, sums over the batch must have the same number of "
                    "rows for each sample"
                )
            return each * self._start, each * self._samples
        counts = np.zeros(self._group.size, "int64")
        counts[self._group.rank] = n
        counts = self._group.all_reduce(counts)
        return int(counts[: self._group.rank].sum()), int(counts.sum())
