"""What the process of rank 0 does for all ranks of the double of NCCL: it compares calls, and combines the data."""

import json
import socket
import struct

import numpy as np

# Of sum, product, maximum and minimum. NCCL does not promise that a NaN wins.
OPERATIONS = (np.add, np.multiply, np.fmax, np.fmin)


def serve(listener: socket.socket) -> None:
    with listener:
        links: dict[int, socket.socket] = {}
        buses: dict[int, str] = {}
        size, status, reason = 1, 0, ""
        arrived = []
        while len(arrived) < size:
            link, _ = listener.accept()
            hello, _ = receive(link)
            if hello is None:
                return
            arrived.append(link)
            if len(arrived) > 1 and hello["size"] != size:
                status, reason = 4, "ranks of groups of different sizes"
            size = hello["size"]
            if hello["rank"] in links:
                status, reason = 4, f"two ranks {hello['rank']}"
            if is_same_gpu(hello["bus"], buses.values()):
                status, reason = 5, f"Duplicate GPU detected: two ranks on device {hello['bus']}"
            links[hello["rank"]], buses[hello["rank"]] = link, hello["bus"]
        for link in arrived:
            send(link, {"status": status, "reason": reason})
    while not status:
        parts = [receive(links[rank]) for rank in range(size)]
        if any(header is None for header, _ in parts):
            # Ranks that are still there wait for the lost one.
            return _hold(arrived)
        headers = [header["call"] for header, _ in parts]
        if any(header != headers[0] for header in headers):
            for link in arrived:
                send(link, {"status": 4, "reason": f"ranks started different collectives: {headers}"})
            return None
        result = combined(headers[0], [data for _, data in parts])
        for link in arrived:
            send(link, {"status": 0, "reason": ""}, result)
    return None


def combined(header: list, parts: list[bytes]) -> bytes:
    """What all ranks get."""
    name, _, dtype, argument = header
    if name == "broadcast":
        return parts[argument]
    total, *others = (np.frombuffer(data, dtype) for data in parts)
    with np.errstate(all="ignore"):
        for other in others:
            total = OPERATIONS[argument](total, other)
    return total.astype(dtype).tobytes()


def is_same_gpu(bus: str, others) -> bool:
    return bus in others


def _hold(links: list[socket.socket]) -> None:
    """Keep connections open without an answer, as long as this process lives."""
    _held.extend(links)


_held: list[socket.socket] = []


def send(link: socket.socket, header: dict, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    link.sendall(struct.pack("<II", len(text), len(data)) + text + data)


def receive(link: socket.socket) -> tuple[dict | None, bytes]:
    """A message, or None where the other end closed."""
    try:
        head = _exactly(link, 8)
        text, data = struct.unpack("<II", head)
        return json.loads(_exactly(link, text)), _exactly(link, data)
    except (ConnectionError, OSError):
        return None, b""


def _exactly(link: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = link.recv(size - len(parts))
        if not part:
            raise ConnectionError
        parts += part
    return bytes(parts)
