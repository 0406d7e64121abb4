"""Paths that are not files, and a limit on time and memory for code that opens them."""

import os
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What may be in the place of a file.
NO_FILES = ("a folder", "a pipe", "a device", "a link to itself", "a link to nothing", "nothing", "a file as a folder")


def no_file(kind: str, path: Path) -> Path:
    """Make something that is not a file at that path; returns the path to open."""
    with suppress(FileNotFoundError):
        path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind == "a link to nothing":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "a file as a folder":
        path.write_bytes(b"x")
        return path / "inner"
    return path


@contextmanager
def limits(megabytes: int = 64, seconds: int = 30) -> Iterator[None]:
    """Fail if the ``with`` block needs more memory or time; an allocation of gigabytes raises `MemoryError`."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), hard))
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak < megabytes << 20, f"{peak >> 20} MB were used"
