"""What a program does around its work: streams, signals, files written whole; needs the standard library alone.

Standard streams can be printed to, whoever started the program and however. One that is closed (``xpnn info >&-``)
counts as the null device: were its number free, the next file opened would get it, and a library that prints would
write into that file. Text that the encoding of standard output lacks, as ``é`` in ASCII, is printed as ``\\xe9``;
bytes of file names that are no text are printed as they are.
"""

import codecs
import importlib.util
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
    """SIGTERM came."""

    number = signal.SIGTERM


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes for text that can't be encoded: the file system's own, else an escape sequence."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = bytearray()
    for character in error.object[error.start : error.end]:
        code = ord(character)
        found += bytes([code - 0xDC00]) if 0xDC80 <= code < 0xDD00 else character.encode("ascii", "backslashreplace")
    return bytes(found), error.end


codecs.register_error(ESCAPED, _escaped)


def prepare() -> None:
    """Open closed streams on the null device, and let standard output encode any text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "w" if number else "r", encoding="utf-8"))
    if getattr(sys.stdout, "errors", None) in ("strict", "surrogateescape") and hasattr(sys.stdout, "reconfigure"):
        with suppress(OSError):
            sys.stdout.reconfigure(errors=ESCAPED)


def silence() -> None:
    """Send what is still to be flushed to the null device: whoever read it is gone, or there is no room for it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
            continue
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def tell(text: str) -> None:
    """Print a line on standard error, if it still can be read."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def terminated() -> Iterator[None]:
    """Within the ``with`` block SIGTERM raises `Terminated`, so that files are closed and none stays half written."""
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
    """The exit status after a signal, as a shell has it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(getattr(error, "number", signal.SIGINT))


def check_environment() -> None:
    """Raise `ValueError` for a wrong environment variable of xpnn, whose other packages may be missing."""
    file = Path(__file__).resolve().parents[2] / "common" / "environment.py"
    spec = importlib.util.spec_from_file_location("xpnn_environment", file)
    assert spec is not None and spec.loader is not None
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)
    environment.check()


def require_writable(path: Path) -> None:
    """Raise `OSError` where no file can be made in a folder, or in the closest one above it that is there."""
    while not path.exists() and path.parent != path:
        path = path.parent
    with tempfile.NamedTemporaryFile(dir=path):
        pass


def put(path: Path, text: str) -> None:
    """Write all or nothing: whoever reads sees the old content or the new. Devices are written to directly."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
