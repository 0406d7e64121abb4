"""Writing files atomically, and reading files that may be of any kind and size.

`write_whole` writes to a temporary file in the same folder, flushes it to the disk and renames it. A rename is atomic,
so a reader sees the old content or the new. The folder, which records the rename, is flushed to the disk too.

A path from a user may name a folder, an endless device or a pipe without a writer, and a file may be larger than the
memory. `file_size` checks before a file is opened; `read_bytes` reads at most a given number of bytes.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .host_memory import host_capacity

PARTIAL = ".partial"
_CHUNK = 1 << 20
_OTHERS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a regular file.

    Raises
    ------
    FileNotFoundError
        If there is none; the message says what the path is instead.
    OSError
        If the system reports an error, as for circular links.
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise FileNotFoundError(f"no file {os.fspath(path)}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _OTHERS if test(found.st_mode)), "something else")
        raise FileNotFoundError(f"no file {os.fspath(path)}: it is {kind}")
    return found.st_size


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The content of a regular file of at most ``most`` bytes, or of the size of the memory.

    Raises
    ------
    FileNotFoundError, OSError
        As `file_size`, and if the file can't be read.
    ValueError
        If the file is larger.
    """
    size = file_size(path)
    if most is None:
        require_memory(size, os.fspath(path))
        return Path(path).read_bytes()
    content = bytearray()
    if size <= most:
        with Path(path).open("rb") as file:
            # Some files, such as those of /proc, have more bytes than their size.
            while len(content) <= most and (part := file.read(min(_CHUNK, most + 1 - len(content)))):
                content += part
    if max(size, len(content)) > most:
        raise ValueError(f"{os.fspath(path)} has {max(size, len(content))} bytes, too many: {most} at most are read")
    return bytes(content)


def require_memory(size: int, what: str) -> None:
    """Raise `ValueError` if ``size`` bytes are more than the memory."""
    total, _ = host_capacity()
    if total and size > total:
        raise ValueError(f"{what} has {size} bytes, more than the memory of {total} bytes")


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replace the content of a file atomically; text is encoded in UTF-8.

    A link stays a link, and a file keeps its permissions. Devices and pipes are written to directly.

    Raises
    ------
    OSError
        If writing fails, as on a full disk; the old file is unchanged, and no temporary file remains.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        with naming(path):
            path.write_bytes(data)
        return
    if path.is_symlink():
        path = path.resolve()
    partial = partial_of(path)
    try:
        with naming(path):
            partial.write_bytes(data)
            if path.exists():
                partial.chmod(path.stat().st_mode & 0o777)
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # Not every system can flush a folder. The file itself is complete.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def partial_of(path: Path) -> Path:
    """The temporary file that `write_whole` writes and renames."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the ``with`` block an `OSError` names this file; for a full disk the system names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def partial_files(folder: Path) -> list[Path]:
    """Temporary files in a folder that `write_whole` left when its process was killed."""
    return [path for path in folder.glob(f".*{PARTIAL}") if path.is_file()]
