"""Processes that ignore signals to end."""

import time
from pathlib import Path

# Ignores signals that end a process, and starts a daemon in another session. Both write their process numbers to files
# in the folder `where`, which the code before this defines.
CODE = """
import os, signal, time

def settle(name):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(os.path.join(where, name + '.partial'), 'w') as file:
        file.write(str(os.getpid()))
    os.replace(os.path.join(where, name + '.partial'), os.path.join(where, name))

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        settle('daemon')
        time.sleep(120)
    os._exit(0)
os.wait()
settle('itself')
"""


def started(where: Path) -> list[int]:
    """The numbers of a process and of its daemon, as soon as both run."""
    files = [where / "itself", where / "daemon"]
    end = time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, "the processes did not start"
        time.sleep(0.02)
    return [int(file.read_text()) for file in files]


def alive(number: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


def ended(numbers: list[int]) -> bool:
    """Whether all processes end within 20 seconds."""
    end = time.monotonic() + 20
    while any(map(alive, numbers)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
