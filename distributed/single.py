"""A group of one process: there is nothing to exchange."""

from typing import Any

from .communicator import Exchange, Reduction
from .group import Group


class SingleProcess:
    """One process that was started by itself."""

    description = "one process"
    rank, size = 0, 1

    def all_reduce(self, buffer: Any, op: Reduction) -> Exchange:
        """Leave the buffer as it is."""
        yield from ()

    def broadcast(self, buffer: Any, root: int) -> Exchange:
        """Leave the buffer as it is."""
        yield from ()

    def close(self, *, failed: bool) -> None:
        """Nothing to release."""


def alone() -> Group:
    """The group of this process by itself."""
    return Group(SingleProcess())
