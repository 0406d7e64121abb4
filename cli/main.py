"""The command line of ``xpnn``.

Each subcommand is a module, or a package, with `configure`, which adds its options to a parser, and `run`, which gets
the parsed options. The first line of its docstring is its help. It may have `expand`, which is called before the
arguments are parsed and replaces some by others, such as ``--config FILE`` by the options in the file.
`cli/exit_status.py` says how a command ends.
"""

import sys
from functools import partial
from types import ModuleType

from .. import __version__
from . import bench, explain, export, info, parity, predict, train
from .bench import compiled_step, distributed
from .errors import check_environment, preparing
from .exit_status import program
from .standalone.arguments import Parser

# By name; a name of two words is given as two arguments.
COMMANDS: dict[str, ModuleType] = {
    "info": info,
    "train": train,
    "predict": predict,
    "explain": explain,
    "export": export,
    "parity": parity,
    "bench": bench,
    "bench compiled-step": compiled_step,
    "bench distributed": distributed,
}

ENVIRONMENT = (
    "Environment variables: XPNN_BACKEND and XPNN_NUMERICS are used where --backend and --numerics are not given; "
    "XPNN_NUM_THREADS is the number of threads that compute (default: the cores of this process); "
    "XPNN_NUMBA=0 leaves out compiled kernels on the CPU, XPNN_CUDA_KERNELS=0 those of this library on a GPU."
)


def build_parser() -> Parser:
    """The parser of the whole command."""
    parser = Parser(
        prog="xpnn",
        epilog=ENVIRONMENT,
        description="Neural-network layers on NumPy or CuPy, written once against the Array API standard.",
    )
    parser.add_argument("--version", action="version", version=f"xpnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.configure(command)
        command.set_defaults(run=module.run, parser=command)
    return parser


def with_joined_name(arguments: list[str]) -> list[str]:
    """The arguments, with the two words of a name such as ``bench compiled-step`` joined into one argument."""
    name = " ".join(arguments[:2])
    return [name, *arguments[2:]] if name in COMMANDS else arguments


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = with_joined_name(sys.argv[1:] if arguments is None else arguments)
    name = " ".join(["xpnn", *(argument for argument in arguments[:1] if argument in COMMANDS)])
    return program(name, partial(_run, arguments))


def _run(arguments: list[str]) -> None:
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    expand = getattr(COMMANDS[options.command], "expand", None)
    if expand is not None:
        at = arguments.index(options.command) + 1
        with preparing():
            expanded = [*arguments[:at], *expand(arguments[at:], options.parser)]
        options, unknown = parser.parse_known_args(expanded)
    if unknown:
        options.parser.unknown(unknown)
    check_environment()
    options.run(options)
