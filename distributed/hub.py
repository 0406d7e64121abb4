"""The hub, a thread of rank 0 that hears all ranks and judges which one failed; see `xpnn.distributed.watch`."""

import selectors
import socket
import threading
import time
from typing import Any

from .connection import Connection

#: Seconds between two reports of a rank.
INTERVAL = 1.0
#: Seconds that others wait for a rank that has ended before it is reported.
AFTER_GOODBYE = 2.0


class _Seen:
    """What the hub knows of a rank."""

    def __init__(self) -> None:
        self.exchanges, self.waits, self.allowed = 0, False, 0.0
        self.since = self.heard = time.monotonic()
        self.has_left = False

    def update(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        if (message["exchanges"], message["waits"]) != (self.exchanges, self.waits):
            self.exchanges, self.waits, self.since = message["exchanges"], message["waits"], now
        self.allowed, self.heard = message["allowed"], now


class Hub:
    """The thread of rank 0 that hears all ranks, its own included, and judges.

    Parameters
    ----------
    size : int
        Number of ranks.
    token : str
        What a rank must know to be heard.
    timeout : float
        Seconds.
    """

    def __init__(self, size: int, token: str, timeout: float) -> None:
        self._size, self._token, self._timeout = size, token, timeout
        self._listener = socket.create_server(("", 0), backlog=size)
        self.port: int = self._listener.getsockname()[1]
        self._ranks: dict[int, tuple[Connection, _Seen, str]] = {}
        self._verdict: tuple[int | None, str] | None = None
        threading.Thread(target=self._run, name="xpnn-hub", daemon=True).start()

    def _run(self) -> None:
        chooser = selectors.DefaultSelector()
        chooser.register(self._listener, selectors.EVENT_READ, None)
        told = 0.0
        while True:
            for key, _ in chooser.select(INTERVAL / 2):
                if key.data is None:
                    link, _ = self._listener.accept()
                    link.settimeout(5.0)
                    connection = Connection(link)
                    chooser.register(link, selectors.EVENT_READ, connection)
                    continue
                messages = key.data.receive()
                for message in messages or ():
                    self._hear(key.data, message)
                if messages is None:
                    chooser.unregister(key.fileobj)
                    key.data.socket.close()
                    self._closed(key.data)
            self._judge()
            if (now := time.monotonic()) - told > INTERVAL:
                told = now
                for connection, _, _ in self._ranks.values():
                    connection.send(alive=True)
            if len(self._ranks) == self._size and all(seen.has_left for _, seen, _ in self._ranks.values()):
                self._listener.close()
                return

    def _hear(self, connection: Connection, message: dict[str, Any]) -> None:
        if "hello" in message:
            if message.get("token") == self._token:
                self._ranks[message["hello"]] = connection, _Seen(), message["where"]
            return
        rank = self._rank_of(connection)
        if rank is None:
            return
        seen = self._ranks[rank][1]
        if "failed" in message:
            self._decide(rank, message["failed"])
        elif "goodbye" in message:
            seen.has_left, seen.since = True, time.monotonic()
        else:
            seen.update(message)

    def _closed(self, connection: Connection) -> None:
        rank = self._rank_of(connection)
        if rank is not None and not self._ranks[rank][1].has_left:
            self._decide(rank, "died")
            self._ranks[rank][1].has_left = True

    def _rank_of(self, connection: Connection) -> int | None:
        return next((rank for rank, (own, _, _) in self._ranks.items() if own is connection), None)

    def _judge(self) -> None:
        """Find a rank for which others have waited too long."""
        now = time.monotonic()
        seen = {rank: each for rank, (_, each, _) in self._ranks.items()}
        waiting = [each for each in seen.values() if each.waits and not each.has_left]
        if not waiting or self._verdict:
            return
        longest, furthest = max(now - each.since for each in waiting), max(each.exchanges for each in waiting)
        left = [rank for rank, each in seen.items() if each.has_left and now - each.since > AFTER_GOODBYE]
        if left and longest > AFTER_GOODBYE:
            self._decide(left[0], "ended while other ranks wait for it")
            return
        late = {rank: each for rank, each in seen.items() if each.exchanges < furthest or not each.waits}
        allowed = self._timeout + max((each.allowed for each in (late or seen).values()), default=0.0)
        if longest > allowed:
            if not late:
                self._decide(None, f"all ranks have waited for {longest:.0f} s in the same exchange")
                return
            rank = min(late, key=lambda each: (late[each].exchanges, each))
            is_silent = now - late[rank].heard > max(self._timeout / 2, 3 * INTERVAL)
            what = "is not heard of any more" if is_silent else "hangs"
            self._decide(rank, f"{what}: other ranks have waited {longest:.0f} s for it")

    def _decide(self, rank: int | None, text: str) -> None:
        if self._verdict is None:
            self._verdict = rank, text
            where = "" if rank is None else self._ranks[rank][2]
            for connection, _, _ in self._ranks.values():
                connection.send(verdict=rank, text=text, where=where)
