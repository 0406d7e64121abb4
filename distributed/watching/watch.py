"""The ranks of a group watch each other, so that none waits forever for one that died, hangs or raised an error.

MPI and NCCL wait without end. So the ranks have another connection, by TCP: each to the *hub*, a process that rank 0
starts, by a thread that holds a socket and nothing else. Once a second a rank says how many exchanges it has begun and
whether it waits in the last one. The hub decides that

- a rank *died* when its connection is closed and it had not said goodbye,
- a rank *hangs* when others have waited for longer than the timeout in an exchange that it has not begun,
- a rank *left* when others wait and it has said goodbye,

and a rank that raises an error says so itself. The hub prints a line about it where rank 0's standard error went when
the group was made, and tells all ranks. Each raises `RankError` from the exchange in which it waits; one that does not
come to an exchange within some seconds is ended by its own thread. So are all if the hub itself is gone or silent.

A rank may need longer for something that the others know nothing of, such as writing a large file: within `allowing` it
is given that time in addition.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import RankError
from .connection import Connection
from .hub import INTERVAL

#: Seconds in which a rank has to raise the error, before its thread ends the process.
GRACE = 8.0
#: Characters of an error that others are told.
LONGEST_TEXT = 4000


class Watch:
    """A rank's connection to the hub.

    Parameters
    ----------
    rank : int
    hosts : sequence of str
        Where the hub may be reached, and its ``port``.
    token : str
    timeout : float
        Seconds.

    Attributes
    ----------
    failure : RankError or None
        What the hub has decided.
    exchanges : int
        How many exchanges this rank has begun to wait for, and ``waits``: whether it still waits for the last one.
    """

    def __init__(self, rank: int, hosts: list[str], port: int, token: str, timeout: float) -> None:
        self.rank, self.timeout = rank, timeout
        self.failure: RankError | None = None
        self.exchanges, self.waits, self._allowed = 0, False, 0.0
        self._has_left = self._is_raised = False
        self._connection = Connection(_connected(hosts, port, timeout))
        where = f"{socket.gethostname()}, process {os.getpid()}"
        self._connection.send(hello=rank, token=token, where=where)
        self._connection.socket.settimeout(timeout)
        messages = self._connection.receive()
        if not messages:
            self._connection.socket.close()
            raise ConnectionError(f"what listens at port {port} of rank 0 is not the process that watches the ranks")
        self._connection.socket.settimeout(INTERVAL)
        threading.Thread(target=self._run, args=(messages,), name="xpnn-watch", daemon=True).start()

    def check(self) -> None:
        """Raise the `RankError` if the hub has decided that a rank failed."""
        if self.failure is not None:
            self._is_raised = True
            raise self.failure

    def advise(self, text: str) -> None:
        """Set what the line about a failure ends with."""
        self._connection.send(advice=text)

    @contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Within the block, this rank may keep others waiting for so many seconds more."""
        before, self._allowed = self._allowed, self._allowed + seconds
        self._report()
        try:
            yield
        finally:
            self._allowed = before

    def fail(self, text: str, is_at_fault: bool = True) -> None:
        """Tell all ranks that this one can't go on, and whether it is the one to be named."""
        # The error that this rank raises is its own, even if another one was faster.
        self._is_raised = True
        if self.failure is None and not self._has_left:
            self._connection.send(failed=text[:LONGEST_TEXT], is_at_fault=is_at_fault)

    def leave(self) -> None:
        """Say goodbye: this rank has nothing more to exchange."""
        self._has_left = True
        self._connection.send(goodbye=True)

    def _report(self) -> None:
        self._connection.send(exchanges=self.exchanges, waits=self.waits, allowed=self._allowed)

    def _run(self, messages: list[dict[str, Any]] | None) -> None:
        heard = reported = time.monotonic()
        while not self._has_left:
            now = time.monotonic()
            if messages:
                heard = now
            if now - reported >= INTERVAL / 2:
                reported = now
                self._report()
            for message in messages or ():
                if "verdict" in message:
                    self._fail(message["verdict"], message["text"])
                    return
            if messages is None:
                if not self._has_left:
                    self._fail_without_hub("has died")
                return
            if now - heard > self.timeout + INTERVAL and self.waits:
                self._fail_without_hub(f"is not heard of any more: rank {self.rank} has waited {now - heard:.0f} s")
                return
            messages = self._connection.receive()

    def _fail_without_hub(self, what: str) -> None:
        text = f"the process that watches the ranks, which rank 0 had started, {what}"
        if self.rank == 1:
            print(f"xpnn: {text}", file=sys.stderr, flush=True)
        self._fail(None, text)

    def _fail(self, rank: int | None, text: str) -> None:
        self.failure = RankError(rank, text)
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if self._is_raised or self._has_left:
                return
            time.sleep(0.05)
        # The program waits somewhere else, such as for a device.
        os._exit(1)


def _connected(hosts: list[str], port: int, timeout: float) -> socket.socket:
    """A connection to the first of these hosts that can be reached."""
    problems = []
    for host in hosts:
        try:
            return socket.create_connection((host, port), timeout=timeout / 2)
        except OSError as error:
            problems.append(f"{host}: {error}")
    raise ConnectionError(
        f"rank 0 can't be reached at port {port} ({'; '.join(problems)}); the processes of a group must be able to "
        "connect to each other by TCP"
    )
