"""Files that are there whole or not at all, and files from elsewhere, of which nothing is believed.

A file is written beside its place, forced to the disk and renamed: rename replaces in one step, so whoever reads sees
the old content or the new. The folder is forced to the disk too, since a rename is kept there.

A path that is to be read may name a folder, a device without end or a pipe that nobody writes to, and a file may be
larger than the memory. `file_size` looks before anything is opened; `read_bytes` reads no more than it is allowed to.
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
        Where there is none; says what there is instead.
    OSError
        Where the system does not tell, as for links in a circle.
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
    """All of a regular file that holds at most so many bytes, or as many as there is memory for.

    Raises
    ------
    FileNotFoundError, OSError
        As `file_size`, and where it can't be read.
    ValueError
        For a larger one.
    """
    size = file_size(path)
    if most is None:
        require_memory(size, os.fspath(path))
        return Path(path).read_bytes()
    content = bytearray()
    if size <= most:
        with Path(path).open("rb") as file:
            # Some files, such as those of /proc, hold more than they say.
            while len(content) <= most and (part := file.read(min(_CHUNK, most + 1 - len(content)))):
                content += part
    if max(size, len(content)) > most:
        raise ValueError(f"{os.fspath(path)} has {max(size, len(content))} bytes, too many: {most} at most are read")
    return bytes(content)


def require_memory(size: int, what: str) -> None:
    """Raise `ValueError` where something takes more bytes than there is memory."""
    total, _ = host_capacity()
    if total and size > total:
        raise ValueError(f"{what} takes {size} bytes, more than there is memory: {total}")


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Put ``content`` in a file's place; text in UTF-8.

    A link stays a link, a file keeps its permissions. Devices and pipes are written to directly.

    Raises
    ------
    OSError
        Where that fails, as on a full disk; what was there before is there still, and nothing beside it.
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
    # Not every system lets a folder be forced, and by now the file is there.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def partial_of(path: Path) -> Path:
    """Where `write_whole` writes a file before it is renamed into place."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the ``with`` block an `OSError` names that file; of a full disk the system names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def leftovers(folder: Path) -> list[Path]:
    """What `write_whole` left in a folder when it was killed."""
    return [path for path in folder.glob(f".*{PARTIAL}") if path.is_file()]
