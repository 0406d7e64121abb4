"""Paths that are no files, and a limit on time and memory for whoever opens them."""

import os
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What may stand where a file is expected.
NO_FILES = ("a folder", "a pipe", "a device", "a link to itself", "a link to nothing", "nothing", "a file as a folder")


def no_file(kind: str, path: Path) -> Path:
    """Put what is no file at that path; returns the path to open."""
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
    """Fail where more memory than that is taken at a time, or more time; an attempt at gigabytes is stopped."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (2 << 30), hard))
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak < megabytes << 20, f"{peak >> 20} MB were taken"
