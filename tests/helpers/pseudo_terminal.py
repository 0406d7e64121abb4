"""Run programs on a pseudo-terminal with a given number of columns."""

import os
import re
import struct
import subprocess
import sys


def shown(columns: int, *command: str, **environment: str) -> tuple[int, list[str]]:
    """The exit status of a program and the lines that a terminal shows in the end, without colours."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", **environment}
    ) as process:
        os.close(theirs)
        sent = b""
        try:
            while part := os.read(ours, 65536):
                sent += part
        except OSError:
            pass  # the error of Linux when the other end is closed
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode())
    return process.returncode, [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]


def python(columns: int, code: str, **environment: str) -> list[str]:
    """The lines that Python code prints; it must exit with status 0."""
    status, lines = shown(columns, sys.executable, "-c", code, **environment)
    assert status == 0, "\n".join(lines)
    return lines
