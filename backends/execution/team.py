"""Teams of workers that share a batch, for sums over all samples.

In exact numerics a sum over the batch has one result, however the batch is split: the workers agree on a scale, add
whole numbers, and round once. A worker enters its team (`joined`), and sums over axis 0, which is the batch throughout
the library, are then those of the team. Outside of a team a worker has the whole batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from ...common.types import Array


class Team(Protocol):
    """Workers that each have some rows of a batch and call the same functions in the same order."""

    def max(self, array: Array) -> Array:
        """Elementwise maximum over the workers' arrays; NaN where one of them is NaN."""

    def sum(self, array: Array) -> Array:
        """Elementwise sum over the workers' arrays: whole numbers in float64, exact in any order, or int64."""

    def rows(self, n: int) -> int:
        """Total over the workers of a number of rows or terms."""

    def slice(self, n: int) -> tuple[int, int]:
        """For the ``n`` rows of this worker: the number of rows before them, and that of the whole batch."""


_current: ContextVar[Team | None] = ContextVar("xpnn_team", default=None)


@contextmanager
def joined(team: Team) -> Iterator[None]:
    """Within the ``with`` block, this thread's sums over the batch are those of the team."""
    token = _current.set(team)
    try:
        yield
    finally:
        _current.reset(token)


# Samples of this worker, where they begin in the batch, and the size of the batch.
_place: ContextVar[tuple[int, int, int] | None] = ContextVar("xpnn_place", default=None)


@contextmanager
def placed(samples: int, start: int, total: int) -> Iterator[None]:
    """Within the ``with`` block, this thread has that part of a batch, but sums of its own: for fast numerics."""
    token = _place.set((samples, start, total))
    try:
        yield
    finally:
        _place.reset(token)


def current_team() -> Team | None:
    """The team of this thread, if any."""
    return _current.get()


def rows_of_all(n: int) -> int:
    """The total number of rows of all workers, if this one has ``n``."""
    team = _current.get()
    return n if team is None else team.rows(n)


def place_in_batch(n: int) -> tuple[int, int]:
    """For ``n`` samples of this worker: where they begin in the batch, and the size of the batch."""
    team, place = _current.get(), _place.get()
    if team is not None:
        return team.slice(n)
    if place is None:
        return 0, n
    samples, start, total = place
    if not samples:
        return start, total
    return (0, n) if n % samples else (start * (n // samples), total * (n // samples))
