"""The options ``--backend`` and ``--numerics``, the same in every command: option, environment variable, default."""

import argparse

from ..backends import Backend, BackendUnavailable, get_backend
from ..backends.backend import NUMERICS
from ..backends.registry import VARIABLE, from_environment
from ..common import checks
from .errors import UsageError, text
from .standalone.arguments import closest

NAMES = "numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto"


def add_backend(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Add ``--backend``; `backend_name` and `open_backend` say what it means where it is not given."""
    told = f"{NAMES} (default: the variable {VARIABLE}, else {default})"
    parser.add_argument("--backend", default=None, type=text, metavar="NAME", help=told)


def add_numerics(parser: argparse.ArgumentParser) -> None:
    """Add ``--numerics``."""
    told = "exact: the same bits on every backend (default: the variable XPNN_NUMERICS, else fast)"
    parser.add_argument("--numerics", default=None, type=numerics, metavar="{fast,exact}", help=told)


def numerics(given: str) -> str:
    """An argument that names numerics."""
    try:
        return checks.choice("numerics", given, NUMERICS)
    except ValueError as error:
        close = closest(given, NUMERICS)
        raise argparse.ArgumentTypeError(f"{error}; did you mean {close}?" if close else str(error)) from None


def backend_name(given: str | None, default: str = "auto") -> str:
    """The backend that was given, else that of the environment variable, else the command's default."""
    return given or from_environment() or default


def open_backend(given: str | None, numerics: str | None = None, default: str = "auto") -> Backend:
    """That backend, opened.

    Raises
    ------
    UsageError
        Where the environment variable names one that does not work here.
    ValueError, BackendUnavailable
        For one that was given.
    """
    try:
        return get_backend(backend_name(given, default), numerics=numerics)
    except BackendUnavailable as error:
        if given or not from_environment():
            raise
        raise UsageError(f"{VARIABLE}={from_environment()}: {error}") from error
