"""Mistakes of the person at the keyboard, told from mistakes of the program."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..backends import BackendUnavailable
from ..backends.registry import from_environment
from ..common import environment
from ..training.interrupt import Stopped
from ..training.out_of_memory import OutOfMemory
from .standalone.process import status_of


class UsageError(Exception):
    """The command can't do what it was asked to; the message is one line for the person who asked."""


class Failure(Exception):
    """What the command checked is not as it should be; it has said what, and ends with status 1."""

    status = 1


def told(error: BaseException) -> str:
    """What an error says, in one line: of the system's errors the file and the reason, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) and not isinstance(error, OutOfMemory):
        return f"not enough memory{f' ({text})' if text else ''}; make images, batch or net smaller"
    return text or type(error).__name__


def check_environment() -> None:
    """Refuse environment variables that are wrong, whether they are needed or not."""
    try:
        environment.check()
        from_environment()
    except ValueError as error:
        raise UsageError(told(error)) from error


class NotMeasured(Failure):
    """Nothing failed, but not all that was asked for could be run or measured; status 3."""

    status = 3


@contextmanager
def preparing() -> Iterator[None]:
    """While a command opens what it was given: bad values become `UsageError`, so they show no traceback.

    The environment variables are checked first.
    """
    check_environment()
    try:
        yield
    except (ValueError, OSError, MemoryError, BackendUnavailable) as error:
        raise UsageError(told(error)) from error


def ended(error: KeyboardInterrupt, done: int, of: int | None, what: str, rest: str = "no file was written") -> Stopped:
    """The interrupt of a command that had ``done`` so many, of so many; ``rest`` is what became of the files."""
    number = status_of(error) - 128
    count = f"{done} of {of}" if of is not None else str(done)
    return Stopped(f"{Stopped.words(number)} after {count} {what}; {rest}", number)


def text(given: str) -> str:
    """An argument that is not empty: an empty one is a shell's variable that was not set."""
    if not given.strip():
        raise argparse.ArgumentTypeError(f"must not be empty, got {given!r}")
    return given


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument that is an integer of at least that, and of no more than ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            limit = "" if most is None else f" and <= {most}"
            raise argparse.ArgumentTypeError(f"takes an integer >= {least}{limit}, got {text!r}")
        return value

    return parse


def positive(text: str) -> float:
    """An argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number > 0, got {text!r}")
    return value


def not_negative(text: str) -> float:
    """An argument that is a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number >= 0, got {text!r}")
    return value
