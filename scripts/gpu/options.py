"""The command line of ``gpu_check``."""

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__ != "gpu":
    from ...cli.standalone import process
    from ...cli.standalone.arguments import Parser
    from ...common import environment
else:
    # `gpu_check` run as a file, which adds the folder of these modules to the path.
    from cli.standalone import process
    from cli.standalone.arguments import Parser
    from common import environment

from .preflight import ROOT

# Limits of the stages in seconds; those from parity on fit into one call of 10 minutes.
LIMITS = {"preflight": 10.0, "smoke": 100.0, "nccl": 40.0}
LIMITS |= {"parity": 110.0, "nets": 140.0, "layers": 120.0, "suite": 190.0}
BACKENDS = ("cupy", "torch", "numpy", "strict")
NETS = ("resnet18", "vgg11_bn", "lenet5", "mlp", "digits_lenet")


def some_of(accepted: tuple[str, ...]) -> Any:
    """An argument of several of these names, with commas between."""

    def parse(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        wrong = [name for name in found if name.partition(":")[0] not in accepted]
        if wrong or not found:
            raise argparse.ArgumentTypeError(f"must be some of {', '.join(accepted)}, with commas, got {text!r}")
        return list(dict.fromkeys(found))

    return parse


def nets_with_batches(text: str) -> list[tuple[str, int]]:
    """Nets with their batches: ``resnet18:128,lenet5:64``."""
    found = []
    for word in text.split(","):
        name, _, batch = word.partition(":")
        if name not in NETS or not batch.isdecimal() or int(batch) < 1:
            raise argparse.ArgumentTypeError(f"must be NET:BATCH,... with nets of {', '.join(NETS)}, got {text!r}")
        found.append((name, int(batch)))
    return found


def above_zero(text: str) -> float:
    """An argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value


def count(text: str) -> int:
    """An argument that is an integer above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer > 0, got {text!r}")
    return int(text)


def limits(text: str) -> dict[str, float]:
    """Other limits of stages: ``smoke=60,suite=300``."""
    found = {}
    for word in text.split(","):
        stage, _, seconds = word.partition("=")
        if stage not in LIMITS:
            raise argparse.ArgumentTypeError(
                f"must be STAGE=SECONDS,... with stages of {', '.join(LIMITS)}, got {text!r}"
            )
        found[stage] = above_zero(seconds)
    return found


def expression(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error
    return text


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; a bad call ends with status 2 and one line."""
    parser = Parser(
        prog="gpu_check",
        description="Check xpnn on a machine with a GPU; the top of this file says how.",
    )
    parser.add_argument("folder", type=Path, help="where to write the results; made if it does not exist")
    stages = tuple(LIMITS)
    parser.add_argument("--stages", type=some_of(stages), default=list(stages), help="such as smoke,parity")
    parser.add_argument("--seconds", type=above_zero, default=580.0, help="limit of the whole check")
    parser.add_argument(
        "--limits",
        type=limits,
        default={},
        metavar="STAGE=S,...",
        help=f"other limits of stages than {', '.join(f'{stage}={limit:.0f}' for stage, limit in LIMITS.items())}",
    )
    parser.add_argument("--wheels", type=Path, default=None, metavar="FOLDER", help="wheels that this Python lacks")
    parser.add_argument(
        "--without",
        type=some_of(("sklearn", "array_api_strict", "mpmath", "scipy")),
        default=[],
        help="leave out these packages, and checks that need them",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="where CuPy stores compiled kernels, for later calls too; CuPy's own folder unless given",
    )
    parser.add_argument("--backends", type=some_of(BACKENDS), default=["cupy", "torch:cuda:0"], help="which backends")
    parser.add_argument(
        "--nets",
        type=nets_with_batches,
        default=[("resnet18", 128), ("vgg11_bn", 128), ("lenet5", 64)],
        metavar="NET:BATCH,...",
        help="which nets are timed",
    )
    parser.add_argument("--layer", default="", metavar="NAME", help="only layers whose name contains this")
    parser.add_argument("--rounds", type=count, default=3, help="samples of each side of a benchmark")
    parser.add_argument(
        "--filter", type=expression, default="", metavar="RE", help="only parity cases whose name this finds"
    )
    parser.add_argument(
        "--select", default=None, metavar="EXPR", help="pytest's -k; the tests on those backends unless given"
    )
    parser.add_argument(
        "--tests",
        nargs="+",
        default=[str(ROOT / "tests")],
        help="files for pytest; the tests of the checkout unless given",
    )
    parser.add_argument("--alone", action="store_true", help="one process at a time, for a GPU that admits no more")
    options: argparse.Namespace = parser.parse_args(arguments)
    options.limits = {**LIMITS, **options.limits}
    # PyTorch is not timed itself, because all backends are compared with it.
    options.timed = [name for name in options.backends if not name.startswith("torch")]
    for path in map(Path, options.tests):
        if not path.exists():
            parser.error(f"--tests: there is no {path}")
    options.tests = [str(Path(path).resolve()) for path in options.tests]
    if options.wheels is not None and not list(options.wheels.glob("*.whl")):
        parser.error(f"--wheels: there are no wheels in {options.wheels}")
    try:
        environment.check()
    except ValueError as error:
        parser.error(str(error))
    folders = [folder for folder in (options.folder, options.cache) if folder is not None]
    try:
        for folder in folders:
            process.require_writable(folder)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"can't write to {folder}: {error.strerror}")
    options.folder = options.folder.resolve()
    options.cache = None if options.cache is None else options.cache.resolve()
    return options
