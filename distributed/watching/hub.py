"""The hub, a process that hears all ranks and judges which one failed; see `xpnn.distributed.watching.watch`.

It is a program of its own, which needs nothing but Python's library: a thread of rank 0 would wait for rank 0's other
threads, and would be ended with it. MPI's launcher kills all ranks at once when one dies, before they can say why.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from .connection import Connection

#: Seconds between two reports of a rank.
INTERVAL = 1.0
#: Seconds that others wait for a rank that has ended before it is reported.
AFTER_GOODBYE = 2.0
#: Seconds in which the process of a hub has to start, and in which rank 0 then has to connect.
STARTING = 20.0
#: Seconds within which the end of a rank and those of others are one event: launchers end all ranks with the first.
TOGETHER = 1.0

# This folder is imported by itself: the package would take longer than all else.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from watching.hub import main; main()"


class HubProcess(NamedTuple):
    """Where a hub listens, and the number of its process."""

    port: int
    pid: int


def start_hub(size: int, token: str, timeout: float) -> HubProcess:
    """Start the process of a hub, which ends with the ranks.

    Parameters
    ----------
    size : int
        Number of ranks.
    token : str
        A secret that each rank sends first.
    timeout : float
        Seconds that ranks may wait for another one.

    Raises
    ------
    OSError
        If the process does not start.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError(
            "the process that watches the ranks needs a Python interpreter, and sys.executable is "
            f"{sys.executable!r}; set it to the path of one"
        )
    folder = Path(__file__).resolve().parents[1]
    # In a session of its own a launcher that kills the ranks does not find it.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    limit = threading.Timer(STARTING, process.kill)
    limit.start()
    said = ""
    # Not as arguments, which other users of the machine can see.
    with process.stdout, suppress(BrokenPipeError):
        with process.stdin as given:
            json.dump([size, token, timeout], given)
        said = process.stdout.readline()
    limit.cancel()
    threading.Thread(target=process.wait, name="xpnn-hub", daemon=True).start()
    try:
        return HubProcess(*map(int, said.split()))
    except (TypeError, ValueError) as error:
        raise OSError(f"{sys.executable} did not start the process that watches the ranks") from error


def main() -> None:
    """Run a hub, given its arguments in JSON on standard input; prints its port and process."""
    # Launchers send these to all processes, of which the ranks may have to save the run. The hub ends with them.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    hub = Hub(*json.load(sys.stdin))
    if hasattr(os, "fork") and os.fork():
        # The hub is no child of rank 0, which may wait for all of its own.
        os._exit(0)
    print(hub.port, os.getpid(), flush=True)
    sys.stdout.close()
    hub.run()


class _Seen:
    """What the hub knows of a rank."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.exchanges, self.waits, self.allowed = 0, False, 0.0
        self.since = self.heard = time.monotonic()
        self.has_left, self.ended = False, -inf

    def update(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        if (message["exchanges"], message["waits"]) != (self.exchanges, self.waits):
            self.exchanges, self.waits, self.since = message["exchanges"], message["waits"], now
        self.allowed, self.heard = message["allowed"], now


class Hub:
    """Reads what all ranks report, and judges.

    Parameters
    ----------
    size, token, timeout
        Those of `start_hub`.
    """

    def __init__(self, size: int, token: str, timeout: float) -> None:
        self._size, self._token, self._timeout = size, token, timeout
        self._listener = socket.create_server(("", 0), backlog=size)
        self.port: int = self._listener.getsockname()[1]
        self._ranks: dict[int, _Seen] = {}
        # Those that are open.
        self._connections: dict[int, Connection] = {}
        self._verdict: dict[str, Any] | None = None
        self._advice = ""

    def run(self) -> None:
        """Serve until all ranks have left, or are gone."""
        chooser = selectors.DefaultSelector()
        chooser.register(self._listener, selectors.EVENT_READ, None)
        started = time.monotonic()
        told = 0.0
        while sum(each.has_left for each in self._ranks.values()) < self._size:
            # On Linux in the order in which they became readable, so that the rank that ended first is named.
            events = chooser.select(INTERVAL / 2)
            closed = []
            for key, _ in events:
                if key.data is None:
                    link, _ = self._listener.accept()
                    link.setblocking(False)
                    chooser.register(link, selectors.EVENT_READ, Connection(link))
                elif not self._hear(key.data):
                    chooser.unregister(key.fileobj)
                    key.data.socket.close()
                    closed.append(self._rank_of(key.data))
            # First those that had left.
            ended = [rank for rank in closed if rank is not None]
            for rank in sorted(ended, key=lambda rank: not self._ranks[rank].has_left):
                self._closed(rank)
            self._judge()
            if (now := time.monotonic()) - told > INTERVAL:
                told = now
                self._tell(alive=True)
            if not events and not self._connections and (self._ranks or now - started > STARTING):
                return

    def _tell(self, **message: Any) -> None:
        for connection in self._connections.values():
            connection.send(**message)

    def _hear(self, connection: Connection) -> bool:
        """Read all messages that have arrived; returns whether the connection is still open."""
        while messages := connection.receive():
            for message in messages:
                self._take(connection, message)
        return messages is not None

    def _take(self, connection: Connection, message: dict[str, Any]) -> None:
        if "hello" in message:
            if message.get("token") == self._token:
                self._ranks[message["hello"]] = _Seen(message["where"])
                self._connections[message["hello"]] = connection
                connection.send(welcome=True)
                if self._verdict is not None:
                    connection.send(**self._verdict)
            return
        rank = self._rank_of(connection)
        if rank is None:
            return
        seen = self._ranks[rank]
        if "failed" in message:
            self._decide(rank if message["is_at_fault"] else None, message["failed"])
        elif "advice" in message:
            self._advice = message["advice"]
        elif "goodbye" in message:
            seen.has_left, seen.since = True, time.monotonic()
        else:
            seen.update(message)

    def _closed(self, rank: int) -> None:
        del self._connections[rank]
        own = self._ranks[rank]
        own.ended = time.monotonic()
        if own.has_left:
            return
        own.has_left = True
        # A rank that has left ends when all have, unless it ends with an error, for which launchers end the others.
        before = {other: own.ended - each.ended for other, each in self._ranks.items() if other != rank}
        first = max((each for each in before if before[each] < TOGETHER), key=before.__getitem__, default=None)
        if first is not None:
            self._decide(first, "ended before the others")
        elif len(self._ranks) < self._size:
            self._decide(None, "a rank ended before all were connected")
        else:
            self._decide(rank, "died")

    def _rank_of(self, connection: Connection) -> int | None:
        return next((rank for rank, own in self._connections.items() if own is connection), None)

    def _judge(self) -> None:
        """Find a rank for which others have waited too long."""
        now = time.monotonic()
        waiting = [each for each in self._ranks.values() if each.waits and not each.has_left]
        if not waiting or self._verdict is not None:
            return
        longest, furthest = max(now - each.since for each in waiting), max(each.exchanges for each in waiting)
        left = [rank for rank, each in self._ranks.items() if each.has_left and now - each.since > AFTER_GOODBYE]
        if left and longest > AFTER_GOODBYE:
            self._decide(left[0], "ended while other ranks wait for it")
            return
        late = {rank: each for rank, each in self._ranks.items() if each.exchanges < furthest or not each.waits}
        allowed = self._timeout + max((each.allowed for each in (late or self._ranks).values()), default=0.0)
        if longest > allowed:
            if not late:
                self._decide(None, f"all ranks have waited for {longest:.0f} s in the same exchange")
                return
            rank = min(late, key=lambda each: (late[each].exchanges, each))
            is_silent = now - late[rank].heard > max(self._timeout / 2, 3 * INTERVAL)
            what = "is not heard of any more" if is_silent else "hangs"
            self._decide(rank, f"{what}: other ranks have waited {longest:.0f} s for it")

    def _decide(self, rank: int | None, text: str) -> None:
        """Print a line about the rank at fault, if any, and tell all ranks; only the first time."""
        if self._verdict is not None:
            return
        text = f"the group: {text}" if rank is None else f"rank {rank} ({self._ranks[rank].where}) {text}"
        with suppress(OSError):
            print(f"xpnn: {text}{self._advice}", file=sys.stderr, flush=True)
        self._verdict = {"verdict": rank, "text": text}
        self._tell(**self._verdict)
