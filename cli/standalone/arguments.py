"""The argument parser of all commands and scripts: errors in one line, and no abbreviated options.

An abbreviation such as ``--resum`` may become ambiguous when an option is added, so it is an error that names the
closest option. Imports only the standard library.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from .help_text import Help


class Parser(argparse.ArgumentParser):
    """A parser that accepts only full names of options and ends with one line and status 2 if an argument is wrong."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, "formatter_class": Help, **keywords})

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is reported first, since it may be why another is missing."""
        arguments = list(sys.argv[1:] if args is None else args)
        for argument in arguments:
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                break
            name = argument.partition("=")[0]
            # A value with blanks in it may start with dashes.
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                self.unknown([name])
        return super().parse_known_args(arguments, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown argument is an error."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.unknown(unknown)
        return options

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores errors when it writes a help text.
        if message and file is not None and file is sys.stdout:
            file.write(message)
            file.flush()
        else:
            super()._print_message(message, file)

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        """End with the error for unknown arguments."""
        self.error(f"unknown argument {arguments[0]!r}; {self.hint(arguments[0])}")

    def hint(self, name: str) -> str:
        """What to write instead of an unknown option."""
        options = {
            option.lstrip("-"): option
            for option, action in self._option_string_actions.items()
            if option.startswith("--") and action.help != argparse.SUPPRESS
        }
        close = closest(name.strip("-"), options) if name.startswith("-") else None
        return f"did you mean {options[close]}?" if close else f"{self.prog} --help lists the options"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            close = closest(str(value), map(str, action.choices or ()))
            if close:
                error.message += f"; did you mean {close}?"
            raise


def closest(word: str, words: Iterable[str]) -> str | None:
    """The word that a mistyped or abbreviated one most resembles; None if there is none."""
    words = list(words)
    longer = [each for each in words if each.startswith(word)] if len(word) > 1 else []
    # Letters in another order are the likeliest mistake.
    swapped = [each for each in words if sorted(each) == sorted(word)]
    close = longer or swapped or difflib.get_close_matches(word, words, 1)
    return close[0] if close else None
