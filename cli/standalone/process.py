"""Standard streams, SIGTERM and writable folders of all commands and scripts. Imports only the standard library.

A standard stream that is closed (``xpnn info >&-``) becomes the null device: otherwise the next file that is opened
would get its number, and a library that prints would write into that file. Text that the encoding of standard output
lacks, as ``é`` in ASCII, is printed as ``\\xe9``; bytes of file names that are not text are printed as they are.
"""

import codecs
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

ESCAPED = "xpnn-escaped"


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""

    number = signal.SIGTERM


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes for text that can't be encoded: those of a file name as they are, else an escape sequence."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = bytearray()
    for character in error.object[error.start : error.end]:
        code = ord(character)
        found += bytes([code - 0xDC00]) if 0xDC80 <= code < 0xDD00 else character.encode("ascii", "backslashreplace")
    return bytes(found), error.end


codecs.register_error(ESCAPED, _escaped)


def prepare() -> None:
    """Open closed standard streams on the null device, and let standard output encode any text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # This is the lowest free number, so the new file gets it.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "w" if number else "r", encoding="utf-8"))
    if getattr(sys.stdout, "errors", None) in ("strict", "surrogateescape") and hasattr(sys.stdout, "reconfigure"):
        with suppress(OSError):
            sys.stdout.reconfigure(errors=ESCAPED)


def silence() -> None:
    """Flush the streams; one that can't be flushed becomes the null device, so that Python's exit does not fail."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
            continue
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def print_error(text: str) -> None:
    """Print a line on standard error; errors are ignored."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def terminated() -> Iterator[None]:
    """Within the ``with`` block SIGTERM raises `Terminated`, so that files are closed and none is left half-written."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated("stopped by SIGTERM")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def status_of(error: KeyboardInterrupt) -> int:
    """The exit status after a signal, as in a shell: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(getattr(error, "number", signal.SIGINT))


def require_writable(path: Path) -> None:
    """Raise `OSError` if no file can be made in a folder, or in the closest existing folder above it."""
    while not path.exists() and path.parent != path:
        path = path.parent
    with tempfile.NamedTemporaryFile(dir=path):
        pass
