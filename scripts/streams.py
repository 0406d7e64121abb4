"""Standard streams that a command can print to, whoever started it and however; needs the standard library alone.

A stream that is closed (``xpnn info >&-``) counts as the null device: were its number free, the next file opened would
get it, and a library that prints would write into that file. Text that the encoding of standard output lacks, as
``é`` in ASCII, is printed as ``\\xe9``; bytes of file names that are no text are printed as they are.
"""

import codecs
import os
import sys
from contextlib import suppress

ESCAPED = "xpnn.escaped"


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
