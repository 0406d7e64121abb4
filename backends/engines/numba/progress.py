"""A line on the terminal if compiling takes long."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

# Seconds after which a line says what is being compiled.
PATIENCE = 2.0
_said = False


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Around a compilation: says so, once in a process, if it takes more than `PATIENCE` seconds."""
    timer = Timer(PATIENCE, _say, [name])
    timer.daemon = True
    if not _said:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(name: str) -> None:
    global _said
    _said = True
    print(f"xpnn: compiling {name} and other kernels, once for this machine", file=sys.stderr, flush=True)
