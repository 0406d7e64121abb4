"""Messages between processes, as lines of JSON on a socket."""

import json
import socket
import threading
from typing import Any

#: Bytes of the longest message.
LONGEST = 1 << 20


class Connection:
    """Messages as lines of JSON on a socket."""

    def __init__(self, link: socket.socket) -> None:
        self.socket, self._lock, self._received = link, threading.Lock(), b""
        self._takes_more = True

    def send(self, **message: Any) -> None:
        """Send a message; it is lost if the other end is gone, or has read nothing for long."""
        with self._lock:
            if self._takes_more:
                try:
                    self.socket.sendall(json.dumps(message).encode() + b"\n")
                except OSError:
                    # A part of the line may have been sent.
                    self._takes_more = False

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived, after waiting if the socket does; None when the other end has closed."""
        try:
            data = self.socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
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
