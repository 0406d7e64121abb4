"""The exchanges of a rank: one after the other in the same order on all ranks, each polled until it ends."""

import os
import time
from typing import Any, NamedTuple

from .communicator import Communicator, Exchange, Pending, Queue, Reduction
from .errors import RankError
from .watching.watch import Watch

#: Seconds in which an exchange is polled all the time, and then the seconds between two looks.
SPINNING = 0.002
PAUSE = 0.0002
#: Seconds in which an exchange may still end after a rank has failed.
LAST_EXCHANGE = 0.5
# There may be more processes than cores.
_let_others_run = getattr(os, "sched_yield", lambda: None)


class Traffic(NamedTuple):
    """What a rank has exchanged: collective operations, and the bytes of its arrays in these."""

    messages: int
    bytes: int
    seconds: float

    def since(self, before: "Traffic") -> "Traffic":
        """The difference."""
        return Traffic(self.messages - before.messages, self.bytes - before.bytes, self.seconds - before.seconds)


class Exchanges:
    """Starts exchanges and waits for them, unless a rank fails.

    Parameters
    ----------
    communicator : Communicator

    Attributes
    ----------
    watch : Watch or None
        What hears of the failures of other ranks.
    traffic : Traffic
    has_failed : bool
        Whether this rank has failed, so that it exchanges no more.
    is_closed : bool
    """

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator
        self.watch: Watch | None = None
        self.traffic = Traffic(0, 0, 0.0)
        self.has_failed = self.is_closed = False
        self._queue = Queue()

    def start(self, buffer: Any) -> Pending:
        """Start to replace a buffer by its sum over all ranks; see `finish`."""
        return self._begin(self.communicator.all_reduce(buffer, "sum"), buffer)

    def all_reduce(self, buffer: Any, op: Reduction) -> None:
        """Replace a buffer by its sum or maximum over all ranks."""
        self.finish(self._begin(self.communicator.all_reduce(buffer, op), buffer))

    def broadcast(self, buffer: Any, root: int) -> None:
        """Replace a buffer by that of a rank."""
        self.finish(self._begin(self.communicator.broadcast(buffer, root), buffer))

    def _begin(self, steps: Exchange, buffer: Any) -> Pending:
        self._require_open()
        while not self._queue.all_have_started:
            self._queue.advance()
            self.check()
        messages, exchanged, seconds = self.traffic
        self.traffic = Traffic(messages + 1, exchanged + buffer.nbytes, seconds)
        return self._queue.add(steps)

    def advance(self) -> None:
        """Let exchanges that were started go on; MPI does so only while it is called."""
        self._queue.advance()

    def finish(self, pending: Pending) -> None:
        """Wait for an exchange; a device waits by itself."""
        watch = self.watch
        if watch is not None:
            watch.exchanges += 1
        pending.advance(wanted=True)
        if pending.is_done:
            return
        start = time.perf_counter()
        failed = 0.0
        if watch is not None:
            watch.waits = True
        while not pending.is_done:
            self._queue.advance()
            pending.advance(wanted=True)
            if watch is not None and watch.failure is not None and not pending.is_done:
                # An exchange to which the failed rank contributed still ends, such as one in which all found an error.
                failed = failed or time.perf_counter()
                if time.perf_counter() - failed > LAST_EXCHANGE:
                    self.check()
            if time.perf_counter() - start < SPINNING:
                _let_others_run()
            else:
                time.sleep(PAUSE)
        if watch is not None:
            watch.waits = False
        messages, exchanged, seconds = self.traffic
        self.traffic = Traffic(messages, exchanged, seconds + time.perf_counter() - start)

    def _require_open(self) -> None:
        if self.is_closed:
            raise RuntimeError("this group has ended, by close() or at the end of its with block; make one: init()")
        if self.has_failed:
            # Others may be in another exchange, and would take this one for theirs.
            self.check()
            rank = self.communicator.rank
            raise RankError(rank, f"rank {rank} has failed before; the group can't exchange any more")

    def check(self) -> None:
        """Raise the error of another rank, if one has failed."""
        if self.watch is not None and self.watch.failure is not None:
            self.has_failed = True
            self.watch.check()
