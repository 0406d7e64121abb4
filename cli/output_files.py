"""Files that a command writes: a check before the work whether they can be written, and lines added one by one."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from ..common.files import naming, partial_of


def target(option: str, path: str | None) -> Path | None:
    """The path of an option's file, if `write_whole` can write it; None where the option is not given.

    Raises
    ------
    ValueError
        If the folder is missing, or no file can be made in it.
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
        # The file that `write_whole` writes first.
        probe = file.resolve() if file.is_symlink() else file
        try:
            make_and_delete(partial_of(probe))
        except OSError as error:
            raise ValueError(f"--{option} {path}: no file can be made in {file.parent} ({error.strerror})") from error
    return file


def targets(paths: Mapping[str, str | None]) -> dict[str, Path | None]:
    """The path of each option's file, as `target` returns it.

    Raises
    ------
    ValueError
        As `target` does, and if two options name one file.
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


def make_and_delete(probe: Path) -> None:
    """Make a file and delete it; `OSError` if that is not possible. A file that exists is not changed."""
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    probe.unlink()


def append(file: Path, row: Any) -> None:
    """Add a line of JSON to a file, whole or not at all; lines that were written before are never lost."""
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
    """The value with infinities and NaN as words, because JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value
