"""Files that a command was asked to write: known to be writable before the work, and whole afterwards."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from ..common.files import naming, partial_of, write_whole

write = write_whole


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
        # Where `write` will begin.
        probe = file.resolve() if file.is_symlink() else file
        try:
            touched(partial_of(probe))
        except OSError as error:
            raise ValueError(f"--{option} {path}: no file can be made in {file.parent} ({error.strerror})") from error
    return file


def targets(paths: Mapping[str, str | None]) -> dict[str, Path | None]:
    """The file of each option, once it is sure that each can be written, and that no two are one.

    Raises
    ------
    ValueError
        As `target` does, and where two options name one file.
    """
    files = {option: target(option, path) for option, path in paths.items()}
    first: dict[Path, str] = {}
    for option, file in files.items():
        if file is None or (file.exists() and not file.is_file()):
            continue
        other = first.setdefault(file.resolve(), option)
        if other != option:
            raise ValueError(f"--{other} and --{option} both name {paths[option]}; name two files")
    return files


def touched(probe: Path) -> None:
    """Make a file and delete it; `OSError` where that is not possible. One that is there stays."""
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    probe.unlink()


def append(file: Path, row: Any) -> None:
    """Add a line of JSON to a file, whole or not at all; what was written before is there, whatever becomes of this."""
    line = json.dumps(finite(row), allow_nan=False, separators=(",", ":")) + "\n"
    existed = file.exists()
    size = file.stat().st_size if existed and file.is_file() else None
    try:
        with naming(file), file.open("ab") as stream:
            stream.write(line.encode())
    except OSError:
        with suppress(OSError):
            if not existed:
                file.unlink(missing_ok=True)
            elif size is not None:
                os.truncate(file, size)
        raise


def finite(value: Any) -> Any:
    """The value with infinite numbers and NaN as words, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value
