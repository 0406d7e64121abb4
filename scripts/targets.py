"""Files that a command was asked to write: known to be writable before the work, and whole afterwards."""

import json
import os
import tempfile
from math import isfinite
from pathlib import Path
from typing import Any


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


def append(file: Path, row: Any) -> None:
    """Add a line of JSON to a file: what was written before is there whole, whatever becomes of this process."""
    line = json.dumps(finite(row), allow_nan=False, separators=(",", ":")) + "\n"
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line)


def finite(value: Any) -> Any:
    """The value with infinite numbers and NaN as words, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
