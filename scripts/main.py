"""The command line: what it takes, and how it speaks when something is wrong.

Bad input gives one line on standard error and exit status 2; a check that fails, status 1. Each subcommand is a module
with `configure`, which says what it takes, and `run`.
"""

import argparse
import sys
from typing import NoReturn

from .. import __version__
from . import bench, explain, info, parity, predict, train
from .errors import Failure, UsageError


class _Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = _Parser(
        prog="xpnn",
        description="Neural-network layers on NumPy or CuPy, written once against the Array API standard.",
    )
    parser.add_argument("--version", action="version", version=f"xpnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (info, train, predict, explain, parity, bench):
        name = module.__name__.rpartition(".")[2]
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options, unknown = build_parser().parse_known_args(arguments)
    try:
        if unknown:
            raise UsageError(f"unknown argument {unknown[0]!r}; xpnn {options.command} --help lists what it takes")
        options.run(options)
    except UsageError as error:
        print(f"xpnn {options.command}: {error}", file=sys.stderr)
        return 2
    except Failure:
        return 1
    except KeyboardInterrupt:
        print(f"xpnn {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0
