"""The layout of ``--help`` of all commands and scripts. Imports only the standard library."""

import argparse
from typing import Any


class Help(argparse.HelpFormatter):
    """Help with the default of each option that has a useful one: no None, no empty list, no "False" of a switch."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = shown(action)
        text = action.help or ""
        if not default or "default" in text or "unless given" in text:
            return action.help
        return f"{text} (default: {default.replace('%', '%%')})".lstrip()


def shown(action: argparse.Action) -> str:
    """An option's default as it would be given in a call; empty if it has no useful one."""
    value: Any = action.default
    if not action.option_strings or isinstance(value, bool) or value in (None, "", [], {}, argparse.SUPPRESS):
        return ""
    if isinstance(value, list | tuple):
        # Given as several arguments, or as one with commas.
        return (" " if action.nargs in ("+", "*") else ",").join(":".join(map(str, _parts(each))) for each in value)
    return str(value)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
