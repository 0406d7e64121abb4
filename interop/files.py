"""Files that are there whole or not at all.

A file is written beside its place, forced to the disk and renamed: rename replaces in one step, so whoever reads sees
the old content or the new. The folder is forced to the disk too, since a rename is kept there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


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
        path.write_bytes(data)
        return
    if path.is_symlink():
        path = path.resolve()
    partial = path.with_name(f".{path.name}{PARTIAL}")
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
    """Files in a folder that someone was killed over."""
    return [path for path in folder.glob(f".*{PARTIAL}") if path.is_file()]
