"""What a group needs of MPI or NCCL: reductions and broadcasts of flat arrays, which run while Python goes on.

A communicator knows nothing of models. It is given one-dimensional contiguous arrays of NumPy or CuPy, *buffers*, which
it changes in place. All ranks start the same exchanges in the same order.
"""

from collections import deque
from collections.abc import Generator
from math import inf
from time import perf_counter
from typing import Any, Literal, Protocol, TypeAlias

#: The reductions. A maximum is of whole numbers only: that of floats has no defined result for NaN.
Reduction: TypeAlias = Literal["sum", "max"]

#: An exchange that was started, as a generator that is resumed until it ends. It yields whether it has been passed to
#: MPI or NCCL: until then later exchanges have to wait, because the order must be the same on all ranks. It is sent
#: whether the result is wanted now: one that a device orders by itself then ends, before the device is done.
Exchange: TypeAlias = Generator[bool, bool, None]


class Pending:
    """An exchange in progress.

    Attributes
    ----------
    start, end : float
        Seconds of `time.perf_counter`: when it began, and when it was seen to have ended.
    """

    def __init__(self, steps: Exchange) -> None:
        self._steps = steps
        self.has_started = self.is_done = False
        self.start, self.end = perf_counter(), inf
        self._resume(next)

    def advance(self, wanted: bool = False) -> None:
        """Go on as far as possible without waiting."""
        if not self.is_done:
            self._resume(lambda steps: steps.send(wanted))

    def _resume(self, go_on: Any) -> None:
        try:
            self.has_started = go_on(self._steps)
        except StopIteration:
            self.has_started = self.is_done = True
            self.end = perf_counter()


class Queue:
    """Exchanges in progress, in their order."""

    def __init__(self) -> None:
        self._pending: deque[Pending] = deque()

    @property
    def all_have_started(self) -> bool:
        """Whether another exchange can be started."""
        return not self._pending or self._pending[-1].has_started

    def add(self, steps: Exchange) -> Pending:
        """Start an exchange; those before it must have been started."""
        pending = Pending(steps)
        self._pending.append(pending)
        return pending

    def advance(self) -> None:
        """Let all exchanges go on as far as possible without waiting."""
        for pending in self._pending:
            pending.advance()
            if not pending.has_started:
                break
        while self._pending and self._pending[0].is_done:
            self._pending.popleft()


class Communicator(Protocol):
    """The processes of a group, as MPI or NCCL connects them."""

    #: What connects them, for people.
    description: str
    rank: int
    size: int

    def all_reduce(self, buffer: Any, op: Reduction) -> Exchange:
        """Replace a buffer by the sum or maximum over all ranks."""

    def broadcast(self, buffer: Any, root: int) -> Exchange:
        """Replace a buffer by that of a rank."""

    def close(self, *, failed: bool) -> None:
        """Release what it holds; after a failure without waiting for other ranks."""
