"""The options ``--backend`` and ``--numerics``; without one the environment variable counts, else the default."""

import argparse

from ..backends import Backend, BackendUnavailable, get_backend
from ..backends.backend import NUMERICS
from ..backends.registry import VARIABLE, from_environment
from ..common import checks
from .argument_types import text
from .errors import UsageError
from .standalone.arguments import closest

NAMES = "numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto"


def add_backend(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Add ``--backend``."""
    meaning = f"{NAMES} (default: the variable {VARIABLE}, else {default})"
    parser.add_argument("--backend", default=None, type=text, metavar="NAME", help=meaning)


def add_numerics(parser: argparse.ArgumentParser) -> None:
    """Add ``--numerics``."""
    meaning = "exact: the same bits on every backend (default: the variable XPNN_NUMERICS, else fast)"
    parser.add_argument("--numerics", default=None, type=numerics, metavar="{fast,exact}", help=meaning)


def numerics(given: str) -> str:
    """An argument that names numerics."""
    try:
        return checks.choice("numerics", given, NUMERICS)
    except ValueError as error:
        close = closest(given, NUMERICS)
        raise argparse.ArgumentTypeError(f"{error}; did you mean {close}?" if close else str(error)) from None


def backend_name(given: str | None, default: str = "auto") -> str:
    """The name that ``--backend`` was given, else that of the environment variable, else the command's default."""
    return given or from_environment() or default


def open_backend(given: str | None, numerics: str | None = None, default: str = "auto") -> Backend:
    """The backend of that name, as `backend_name` finds it.

    Raises
    ------
    UsageError
        If the environment variable names a backend that does not work here.
    ValueError, BackendUnavailable
        If the option does.
    """
    try:
        return get_backend(backend_name(given, default), numerics=numerics)
    except BackendUnavailable as error:
        if given or not from_environment():
            raise
        raise UsageError(f"{VARIABLE}={from_environment()}: {error}") from error
