"""Options in a TOML file: ``--config run.toml`` is replaced by the options in the file; later arguments override them.

An entry is an option without its leading dashes (``batch = 32``, ``clip-norm = 1.0``, or with underscores). Entries
become arguments before anything is parsed, so they are checked as arguments are.
"""

import argparse
import difflib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..training.saved_net.description import SavedNetError
from ..training.saved_net.weights import CONFIG, read_options
from .errors import UsageError

# Names that are not written to the file of a run: its folder, and where its options come from.
NOT_WRITTEN = {"command", "run", "parser", "config", "distributed", "out", "force", "resume"}


def expanded(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The arguments of a command, after those of its ``--config`` file."""
    path = value_of("--config", arguments)
    return arguments if path is None else [*from_file(Path(path), parser), *arguments]


def value_of(option: str, arguments: list[str]) -> str | None:
    """The value of the last occurrence of an option, before anything is parsed."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == option and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found


def given_options(arguments: list[str]) -> Iterator[str]:
    """Names of the options among arguments, without dashes."""
    return (argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--"))


def from_file(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """A file's entries as arguments; `UsageError` for an unknown option and for a file that is not TOML."""
    table = read(path)
    actions = {
        name[2:]: action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and action.dest not in {*NOT_WRITTEN - {"out", "force"}, "help"}
    }
    arguments: list[str] = []
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in actions:
            close = difflib.get_close_matches(name, actions, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; the options are {', '.join(sorted(actions))}"
            raise UsageError(f"{path}: {key} is not an option of {parser.prog}{hint}")
        arguments += _arguments(path, key, name, value, actions[name])
    return arguments


def read(path: Path) -> dict[str, Any]:
    """A TOML file's entries; `UsageError` for a file that is not TOML."""
    try:
        return read_options(path)
    except SavedNetError as error:
        raise UsageError(str(error)) from None


def _arguments(path: Path, key: str, name: str, value: Any, action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{path}: {key} must be true or false, got {value!r}")
        return [f"--{name}"] if value else []
    if action.nargs in ("*", "+") and isinstance(value, list):
        return [f"--{name}", *(_as_argument(str(each)) for each in value)]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{path}: {key} must be a string or a number, got {value!r}")
    return [f"--{name}={_as_argument(value)}"]


def _as_argument(value: Any) -> Any:
    """Text as Python decodes it from a command line, which differs if the locale's encoding is not UTF-8."""
    return os.fsdecode(value.encode()) if isinstance(value, str) else value


def _as_text(name: str, value: str) -> str:
    """An argument of the command line, decoded as UTF-8."""
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        raise UsageError(f"--{name.replace('_', '-')} {value!r} is not UTF-8 text, which {CONFIG} needs") from None


def as_toml(options: argparse.Namespace) -> str:
    """The text of a TOML file with these options.

    Raises
    ------
    UsageError
        For a file name that is not UTF-8 text, which TOML can't hold.
    """
    entries = {name: value for name, value in vars(options).items() if name not in NOT_WRITTEN and value is not None}
    for name, value in entries.items():
        if isinstance(value, str):
            entries[name] = _as_text(name, value)
    # TOML writes text, numbers, true, false and lists of them as JSON does.
    lines = (f"{name.replace('_', '-')} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in entries.items())
    return "".join(lines)
