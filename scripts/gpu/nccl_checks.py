"""Checks of NCCL with one rank, which is all that one GPU admits: ``run_checks nccl cupy``.

`Group` exchanges nothing where there is one rank, so these call its communicator. What one rank can't show: the numbers
of other ranks, and time on a network.
"""

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ...backends import Backend
from ...backends.errors import first_line
from ...distributed import init, nccl
from ...distributed.communicator import Exchange, Pending

Row = dict[str, Any]

MEBIBYTE = 1 << 20
EXCHANGED = 64 * MEBIBYTE
# Of each time the median of so many.
TIMES = 20
# Seconds in which an exchange must end.
PATIENCE = 10.0


def nccl_rows(b: Backend) -> Iterator[Row]:
    """A row for each check; one that is skipped if there is no NCCL here."""
    problem = "NCCL is for CuPy" if not b.spec.startswith("cupy") else nccl.missing()
    if problem is not None:
        yield {"total": 1}
        yield {"name": "nccl", "skipped": True, "told": f"skipped: {problem}"}
        return
    with b.context():
        yield {"total": 5}
        yield _row("init by torchrun's variables", started)
        made: list[nccl.NCCLCommunicator] = []
        yield _row("communicator of one rank", lambda: _made(made))
        if not made:
            return
        (communicator,) = made
        checks = {"all_reduce": all_reduced, "broadcast": broadcast, "64 MiB": timed}
        for name, check in checks.items():
            yield _row(name, partial(check, communicator))
        communicator.close(failed=False)


def _row(name: str, check: Callable[[], str]) -> Row:
    row: Row = {"name": f"nccl {name}", "passed": True, "problem": ""}
    begun = time.perf_counter()
    try:
        row["told"] = check()
    except Exception as error:
        # Errors of a GPU are of many kinds.
        row |= {"passed": False, "problem": f"{type(error).__name__}: {first_line(error)}"}
    return row | {"seconds": time.perf_counter() - begun}


def started() -> str:
    """Start a group of one as torchrun does, and end it."""
    given = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    before = {name: os.environ.get(name) for name in (*given, "LOCAL_RANK")}
    os.environ.update(given, LOCAL_RANK="0")
    try:
        with init("nccl") as group:
            if (group.rank, group.size) != (0, 1) or not group.description.startswith("NCCL "):
                raise ArithmeticError(f"not NCCL with one rank: {group}")
            return group.description
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _made(made: list[nccl.NCCLCommunicator]) -> str:
    made.append(nccl.NCCLCommunicator(0, 1, ("127.0.0.1", _free_port())))
    return made[0].description


def all_reduced(communicator: nccl.NCCLCommunicator) -> str:
    """Check sums and maxima of one rank, of device arrays of all dtypes and of a host array."""
    import cupy

    for dtype in ("float32", "float64", "int32", "int64", "uint8"):
        for op in ("sum", "max"):
            host = np.arange(100_003) % 251
            # A kernel that is queued just before fills the buffer.
            device = cupy.asarray(host.astype(dtype)) + cupy.ones((), dtype)
            _complete(communicator.all_reduce(device, "sum" if op == "sum" else "max"))
            if not np.array_equal(cupy.asnumpy(device), (host + 1).astype(dtype)):
                raise ArithmeticError(f"the {op} of one rank's {dtype} is not what it gave")
    values = np.array([np.nan, -0.0, np.inf, 1e-40], "float32")
    buffer = values.copy()
    _complete(communicator.all_reduce(buffer, "sum"))
    if not np.array_equal(buffer, values, equal_nan=True):
        raise ArithmeticError(f"the sum of a host array is {buffer}, not {values}")
    return "sums and maxima of 5 dtypes, and of a host array"


def broadcast(communicator: nccl.NCCLCommunicator) -> str:
    """Check a broadcast of one rank."""
    import cupy

    device = cupy.arange(100_003, dtype="float32") * np.float32(0.5)
    _complete(communicator.broadcast(device, 0))
    if not np.array_equal(cupy.asnumpy(device), np.arange(100_003, dtype="float32") * np.float32(0.5)):
        raise ArithmeticError("what arrived is not what was sent")
    return "of 100003 numbers"


def timed(communicator: nccl.NCCLCommunicator) -> str:
    """What an exchange costs the host; with one rank and in place, NCCL has nothing to do on the device."""
    import cupy

    found = {}
    for where, buffer in (
        ("device", cupy.ones(EXCHANGED // 4, dtype="float32")),
        ("host", np.ones(EXCHANGED // 4, "float32")),
    ):
        seconds = []
        for _ in range(TIMES if where == "device" else 5):
            cupy.cuda.get_current_stream().synchronize()
            begun = time.perf_counter()
            _complete(communicator.all_reduce(buffer, "sum"))
            seconds.append(time.perf_counter() - begun)
        found[where] = statistics.median(seconds)
    return (
        f"all_reduce of 64 MiB on the device {found['device'] * 1e6:.0f} us, on the host {found['host'] * 1e3:.1f} ms"
    )


def _complete(steps: Exchange) -> None:
    pending = Pending(steps)
    end = time.monotonic() + PATIENCE
    while not pending.is_done:
        if time.monotonic() > end:
            raise TimeoutError(f"the exchange has not ended after {PATIENCE:.0f} s")
        pending.advance(wanted=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
