"""How every command and script tells its options; on the standard library alone."""

import argparse
from typing import Any


class Help(argparse.HelpFormatter):
    """Tells an option's default where it says something: no None, no empty list, no "False" of a switch."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = shown(action)
        text = action.help or ""
        if not told or "default" in text or "unless given" in text:
            return action.help
        return f"{text} (default: {told.replace('%', '%%')})".lstrip()


def shown(action: argparse.Action) -> str:
    """An option's default as it would be written in a call; empty where there is none, or none that says something."""
    value: Any = action.default
    if not action.option_strings or isinstance(value, bool) or value in (None, "", [], {}, argparse.SUPPRESS):
        return ""
    if isinstance(value, list | tuple):
        # Of several arguments, or of one with commas.
        return (" " if action.nargs in ("+", "*") else ",").join(":".join(map(str, _parts(each))) for each in value)
    return str(value)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
