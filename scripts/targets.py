"""Files that a command was asked to write: known to be writable before the work, and whole afterwards."""

import os
import tempfile
from pathlib import Path


def target(option: str, path: str | None) -> Path | None:
    """The file, once it is sure that it can be written.

    Raises
    ------
    ValueError
        Where there is no such folder, or no file can be made there.
    """
    if path is None:
        return None
    file = Path(path)
    if not file.parent.is_dir():
        raise ValueError(f"--{option} {path}: there is no folder {file.parent}; make it first")
    if file.is_dir():
        raise ValueError(f"--{option} {path} is a folder; name a file")
    if file.exists() and not os.access(file, os.W_OK):
        raise ValueError(f"--{option} {path}: the file can't be written")
    if not file.exists() or file.is_file():
        try:
            with tempfile.NamedTemporaryFile(dir=file.resolve().parent):
                pass
        except OSError as error:
            raise ValueError(f"--{option} {path}: no file can be made in {file.parent} ({error.strerror})") from error
    return file


def write(file: Path, content: str | bytes) -> None:
    """Write all or nothing: the old content stays until the new one is complete. Devices and pipes get it directly."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    file = file.resolve()
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        beside.chmod(file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
