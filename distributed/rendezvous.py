"""How processes that a launcher such as ``torchrun`` started find each other: all connect to rank 0, by TCP.

Rank 0 listens at MASTER_PORT until all ranks are there, and then answers each with the identifier of the group, without
which NCCL can't connect them. It does not wait forever, and says which ranks are missing.

(`cupyx.distributed` has a server for this too. Its server is a process that is forked while CUDA's threads run, which
needs Python's start method ``fork``; that process lives on, and keeps the port, when rank 0 is killed; and the ranks
wait in it without a limit, also where another program has the port.)
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from .watching.connection import Connection

#: Seconds in which all ranks must come. Their programs may start with a cold disk, some much later than others.
JOINING = 120.0
#: Seconds between two attempts to reach rank 0.
AGAIN = 0.1
# What tells a rank from another program that connects to the port.
_GREETING = "xpnn joins"


def identifier_of_root(rank: int, size: int, address: tuple[str, int], make: Callable[[], bytes]) -> bytes:
    """The bytes that ``make`` returns on rank 0, on all ranks.

    Parameters
    ----------
    rank, size : int
    address : tuple of str and int
        Host and port where rank 0 can be reached; it listens at all addresses of its machine.
    make : callable

    Raises
    ------
    RuntimeError
        If the port is taken, a rank doesn't come in time, or two processes have the same rank or different sizes.
    """
    if rank == 0:
        return _give(size, address, make)
    return _ask(rank, size, address)


def _give(size: int, address: tuple[str, int], make: Callable[[], bytes]) -> bytes:
    port = address[1]
    try:
        listener = socket.create_server(("", port), backlog=max(size, 16))
    except (OSError, OverflowError) as error:
        raise RuntimeError(
            f"rank 0 can't listen at port {port} ({error}); another program, or another process with RANK=0, may have "
            "it: choose another MASTER_PORT"
        ) from error
    waiting: dict[int, Connection] = {}
    with listener:
        try:
            for connection, (rank, its_size) in _arriving(listener, set(range(1, size)), waiting, port):
                problem = ""
                if its_size != size:
                    problem = f"rank {rank} was started with WORLD_SIZE={its_size}, rank 0 with WORLD_SIZE={size}"
                elif rank in waiting or not 0 < rank < size:
                    problem = f"two processes were started with RANK={rank}"
                waiting[-1 if problem else rank] = connection
                if problem:
                    raise RuntimeError(problem)
        except RuntimeError as error:
            for connection in waiting.values():
                connection.send(problem=str(error))
            raise
        identifier = make()
        for connection in waiting.values():
            connection.send(identifier=identifier.hex())
            connection.socket.close()
    return identifier


def _arriving(
    listener: socket.socket, expected: set[int], waiting: dict[int, Connection], port: int
) -> Iterator[tuple[Connection, tuple[int, int]]]:
    """Ranks that connect, until all are in ``waiting``; what other programs send is not answered."""
    end = time.monotonic() + JOINING
    while missing := sorted(expected - set(waiting)):
        listener.settimeout(max(end - time.monotonic(), 0.01))
        try:
            link, _ = listener.accept()
        except TimeoutError:
            named = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
            raise RuntimeError(f"{named} did not connect to rank 0 at port {port} within {JOINING:.0f} s") from None
        link.settimeout(5.0)
        connection = Connection(link)
        try:
            rank, size = (int(message) for message in _message(connection)[_GREETING])
        except (KeyError, TypeError, ValueError):
            link.close()
            continue
        yield connection, (rank, size)


def _ask(rank: int, size: int, address: tuple[str, int]) -> bytes:
    end = time.monotonic() + JOINING
    where = f"{address[0]}:{address[1]}"
    while True:
        left = end - time.monotonic()
        try:
            link = socket.create_connection(address, timeout=max(left, 0.01))
            break
        except (OSError, OverflowError) as error:
            if left < 0 or isinstance(error, OverflowError):
                raise RuntimeError(f"rank {rank} can't reach rank 0 at {where}: {error}") from error
            time.sleep(AGAIN)
    with link:
        connection = Connection(link)
        connection.send(**{_GREETING: [rank, size]})
        # Rank 0 gives up first, and says which ranks it missed.
        link.settimeout(max(end - time.monotonic(), 0.0) + 5.0)
        try:
            answer = _message(connection)
            if "problem" in answer:
                raise RuntimeError(f"the ranks can't be connected: {answer['problem']}")
            return bytes.fromhex(answer["identifier"])
        except (KeyError, TypeError, ValueError):
            raise RuntimeError(
                f"rank {rank} got no answer from rank 0 at {where}: it ended, or another program has that port"
            ) from None


def _message(connection: Connection) -> dict[str, Any]:
    """The first message, before the connection's time is over.

    Raises
    ------
    ValueError
        If there is none.
    """
    messages: list[dict[str, Any]] | None = []
    end = time.monotonic() + (connection.socket.gettimeout() or 0.0)
    while messages == [] and time.monotonic() < end:
        messages = connection.receive()
    if not messages or not isinstance(messages[0], dict):
        raise ValueError(json.dumps(messages))
    return messages[0]
