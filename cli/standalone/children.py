"""Child processes that end with the process that started them. Imports only the standard library.

A process that is killed with SIGKILL can't end its children, and a child that leaves its process group, as a daemon
does, is not found by the group. So children have a mark in their environment, which their own children inherit, and a
keeper, a small separate process, waits until the first process ends and then kills all that have the mark.

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
# Repeated searches for marked processes, and seconds between them: a process may start another while it is killed.
SEARCHES, BETWEEN = 50, 0.02
# Seconds to wait for a killed process: one that waits for a device may never end.
PATIENCE = 5.0
PR_SET_PDEATHSIG = 1


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment with one more mark; a process may have several."""
    return {**environment, MARK: f"{environment.get(MARK, '')}{mark};"}


def marked_processes(mark: str) -> Iterator[int]:
    """Numbers of the processes with a mark that contains that text; none where there is no /proc."""
    name, text = f"{MARK}=".encode(), os.fsencode(mark)
    for path in PROCESSES.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if any(entry.startswith(name) and text in entry for entry in path.read_bytes().split(b"\0")):
                yield int(path.parent.name)


def end(group: int | None, mark: str) -> None:
    """Kill a process group, and all processes with the mark until there are none."""
    if group is not None:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(SEARCHES):
        found = [number for number in marked_processes(mark) if number != os.getpid()]
        for number in found:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        if not found:
            return
        time.sleep(BETWEEN)


def reap(process: "subprocess.Popen[Any]") -> int | None:
    """Wait `PATIENCE` seconds for a killed process; its exit status, or None."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE)
    return None


class Keeper:
    """Kills all processes with a mark, and removes a folder, when this process ends, however it ends.

    Parameters
    ----------
    mark : str
        Marks that contain this text count.
    folder : Path
    """

    def __init__(self, mark: str, folder: Path) -> None:
        # When this process ends, the keeper reads the end of its standard input.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve()), mark, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def note(self, group: int) -> None:
        """Add a process group that was started."""
        self._send(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Remove a process group that has ended: its number may be used again."""
        self._send(f"-{group}\n")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Make the keeper kill the remaining processes, and wait for it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        reap(self._process)


def keep(mark: str, folder: str) -> None:
    """Run the keeper."""
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
    """End this process when its parent, process number ``parent``, ends; only on Linux."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    keep(*sys.argv[1:])
