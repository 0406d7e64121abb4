"""Processes that end with the one that started them; on the standard library alone.

A process that is killed can't end what it started, and a child that leaves its process group, as a daemon does, is not
found by the group. So children carry a mark in their environment, which their children inherit, and a keeper, a small
process of its own, waits for the end of the one that started them all.

This file is also the program of the keeper.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = "XPNN_STARTED_FOR"
PROCESSES = Path("/proc")
# Looks for processes that carry a mark, and seconds between them: a process may start another while it is ended.
LOOKS, BETWEEN = 50, 0.02
# Seconds that a process which was killed may take to end: one that waits for a device may not end at all.
PATIENCE = 5.0
PR_SET_PDEATHSIG = 1


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment with a mark more; a process may carry several."""
    return {**environment, MARK: f"{environment.get(MARK, '')}{mark};"}


def carrying(mark: str) -> Iterator[int]:
    """Numbers of the processes that carry a mark which contains that text, as far as the system tells (Linux does)."""
    name, text = f"{MARK}=".encode(), os.fsencode(mark)
    for path in PROCESSES.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if any(entry.startswith(name) and text in entry for entry in path.read_bytes().split(b"\0")):
                yield int(path.parent.name)


def end(group: int | None, mark: str) -> None:
    """Kill a process group, and all that carry the mark, until there are none."""
    if group is not None:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(LOOKS):
        found = [number for number in carrying(mark) if number != os.getpid()]
        for number in found:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        if not found:
            return
        time.sleep(BETWEEN)


def reap(process: "subprocess.Popen[Any]") -> int | None:
    """Wait for a process that was killed, not for ever; its exit status."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE)
    return None


class Keeper:
    """Ends all that carries a mark, and removes a folder, as soon as this process is gone, whatever ended it.

    Parameters
    ----------
    mark : str
        All marks that contain it count.
    folder : Path
    """

    def __init__(self, mark: str, folder: Path) -> None:
        # Its standard input ends with this process.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve()), mark, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def note(self, group: int) -> None:
        """A process group was started."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """A process group has ended; its number may be another's from now on."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Let it end what is left, and wait for it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        reap(self._process)


def keep(mark: str, folder: str) -> None:
    """What a keeper does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
    for group in groups:
        end(group, mark)
    end(None, mark)
    shutil.rmtree(folder, ignore_errors=True)


def die_with_parent(parent: int) -> None:
    """End this process as soon as its parent, which has that number, ends; on Linux, elsewhere nothing is done."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    keep(*sys.argv[1:])
