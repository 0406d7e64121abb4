"""The command line: what it takes, and how it speaks when something is wrong.

Bad input gives one line on standard error and exit status 2; a check that fails, status 1; one of which a part could
not be run or measured, while nothing failed, status 3; an interrupt, 130. Each
subcommand is a module with `configure`, which says what it takes, and `run`; it may have an `expand`, by which a few
arguments stand for more.
"""

import argparse
import os
import sys
from typing import NoReturn

from .. import __version__
from . import bench, explain, info, parity, predict, train
from .errors import Failure, NotMeasured, UsageError
from .help_text import Help

COMMANDS = {module.__name__.rpartition(".")[2]: module for module in (info, train, predict, explain, parity, bench)}


ENVIRONMENT = (
    "Environment variables: XPNN_BACKEND and XPNN_NUMERICS are used where a command is not told --backend and "
    "--numerics; XPNN_NUM_THREADS is the number of threads that compute (default: the cores of this process); "
    "XPNN_NUMBA=0 leaves out compiled kernels on the CPU, XPNN_CUDA_KERNELS=0 those of this library on a GPU."
)


class _Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = _Parser(
        prog="xpnn",
        formatter_class=Help,
        epilog=ENVIRONMENT,
        description="Neural-network layers on NumPy or CuPy, written once against the Array API standard.",
    )
    parser.add_argument("--version", action="version", version=f"xpnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary, formatter_class=Help)
        module.configure(command)
        command.set_defaults(run=module.run, parser=command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    try:
        expand = getattr(COMMANDS[options.command], "expand", None)
        if expand is not None:
            at = arguments.index(options.command) + 1
            expanded = [*arguments[:at], *expand(arguments[at:], options.parser)]
            options, unknown = parser.parse_known_args(expanded)
        if unknown:
            raise UsageError(f"unknown argument {unknown[0]!r}; xpnn {options.command} --help lists what it takes")
        options.run(options)
    except UsageError as error:
        print(f"xpnn {options.command}: {error}", file=sys.stderr)
        return 2
    except NotMeasured:
        return 3
    except Failure:
        return 1
    except BrokenPipeError:
        # Whoever read what is printed has seen enough; what is still to be flushed at the end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        print(f"xpnn {options.command}: {error or 'interrupted'}", file=sys.stderr)
        return 130
    return 0
