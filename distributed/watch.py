"""The ranks of a group watch each other, so that none waits forever for one that died, hangs or raised an error.

MPI and NCCL wait without end. So the ranks have another connection, by TCP: each to rank 0, whose *hub* judges, in
threads of their own that hold a socket and nothing else. Once a second a rank says how many exchanges it has begun and
whether it waits in the last one. The hub decides that

- a rank *died* when its connection is closed and it had not said goodbye,
- a rank *hangs* when others have waited for longer than the timeout in an exchange that it has not begun,
- a rank *left* when others wait and it has said goodbye,

and a rank that raises an error says so itself. The hub then tells all ranks which one it was. Each raises `RankError`
from the exchange in which it waits, and the first of them prints a line on standard error; one that does not come to an
exchange within some seconds is ended by its own thread. If the hub itself is silent for longer than the timeout, rank 0
hangs.

A rank may need longer for something that the others know nothing of, such as writing a large file: within `allowing` it
is given that time in addition.
"""

import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import RankError

#: Seconds between two reports of a rank.
INTERVAL = 1.0
#: Seconds in which a rank has to raise the error, before its thread ends the process.
GRACE = 8.0
#: Bytes of the longest message.
LONGEST = 1 << 20
#: Seconds that others wait for a rank that has ended before it is reported.
AFTER_GOODBYE = 2.0


class Connection:
    """Messages as lines of JSON on a socket."""

    def __init__(self, link: socket.socket) -> None:
        self.socket, self._lock, self._received = link, threading.Lock(), b""

    def send(self, **message: Any) -> bool:
        """Send a message; returns whether the other end is still there."""
        try:
            with self._lock:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived, after waiting for something; None when the other end has closed."""
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        try:
            found = [json.loads(line) for line in lines]
        except ValueError:
            return None
        # Others, such as programs that look for open ports, may send anything.
        return found if all(isinstance(each, dict) for each in found) and len(self._received) < LONGEST else None


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
            is_silent = now - late[rank].heard > self._timeout / 2
            what = "is not heard of any more" if is_silent else "hangs"
            self._decide(rank, f"{what}: other ranks have waited {longest:.0f} s for it")

    def _decide(self, rank: int | None, text: str) -> None:
        if self._verdict is None:
            self._verdict = rank, text
            where = "" if rank is None else self._ranks[rank][2]
            for connection, _, _ in self._ranks.values():
                connection.send(verdict=rank, text=text, where=where)


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
    advice : str
        What the line about a failure ends with.
    exchanges : int
        How many exchanges this rank has begun to wait for, and ``waits``: whether it still waits for the last one.
    """

    def __init__(self, rank: int, hosts: list[str], port: int, token: str, timeout: float) -> None:
        self.rank, self.timeout = rank, timeout
        self.failure: RankError | None = None
        self.advice = ""
        self.exchanges, self.waits, self._allowed = 0, False, 0.0
        self._has_left = self._is_raised = False
        self._connection = Connection(_connected(hosts, port, timeout))
        self._connection.socket.settimeout(INTERVAL)
        where = f"{socket.gethostname()}, process {os.getpid()}"
        self._connection.send(hello=rank, token=token, where=where)
        threading.Thread(target=self._run, name="xpnn-watch", daemon=True).start()

    def check(self) -> None:
        """Raise the `RankError` if the hub has decided that a rank failed."""
        if self.failure is not None:
            self._is_raised = True
            raise self.failure

    @contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Within the block, this rank may keep others waiting for so many seconds more."""
        before, self._allowed = self._allowed, self._allowed + seconds
        self._report()
        try:
            yield
        finally:
            self._allowed = before

    def fail(self, text: str) -> None:
        """Tell all ranks that this one can't go on."""
        # The error that this rank raises is its own, even if another one was faster.
        self._is_raised = True
        if self.failure is None and not self._has_left:
            self._connection.send(failed=text)

    def leave(self) -> None:
        """Say goodbye: this rank has nothing more to exchange."""
        self._has_left = True
        self._connection.send(goodbye=True)

    def _report(self) -> None:
        self._connection.send(exchanges=self.exchanges, waits=self.waits, allowed=self._allowed)

    def _run(self) -> None:
        heard = reported = time.monotonic()
        while not self._has_left:
            messages = self._connection.receive()
            now = time.monotonic()
            if messages:
                heard = now
            if now - reported >= INTERVAL / 2:
                reported = now
                self._report()
            for message in messages or ():
                if "verdict" in message:
                    self._fail(message["verdict"], message["text"], message["where"])
                    return
            if messages is None:
                if not self._has_left:
                    self._fail(0, "died", "")
                return
            if now - heard > self.timeout + INTERVAL and self.waits:
                self._fail(0, f"is not heard of any more: rank {self.rank} has waited {now - heard:.0f} s for it", "")
                return

    def _fail(self, rank: int | None, text: str, where: str) -> None:
        named = "the group" if rank is None else f"rank {rank}" + (f" ({where})" if where else "")
        if rank != self.rank and self.rank == (0 if rank != 0 else 1):
            # At once: MPI's launcher may end this process when it sees that another one has died.
            print(f"xpnn: {named} {text}{self.advice}", file=sys.stderr, flush=True)
        self.failure = RankError(rank, f"{named} {text}")
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
