"""Errors that end a command with one line and a status, as opposed to faults of the program, which show a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..backends import BackendUnavailable
from ..backends.registry import from_environment
from ..common import environment
from ..training.interrupt import Stopped
from ..training.out_of_memory import OutOfMemory
from .standalone.process import status_of


class UsageError(Exception):
    """The call, or something that it names, is wrong; the message is one line for the user. Status 2."""


class Failure(Exception):
    """What the command checked is wrong; the command has printed what. Status 1."""

    status = 1


class NotMeasured(Failure):
    """Nothing failed, but not everything that was requested could be run or measured. Status 3."""

    status = 3


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of an error of the system the file and the reason, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) and not isinstance(error, OutOfMemory):
        return f"not enough memory{f' ({text})' if text else ''}; make images, batch or net smaller"
    return text or type(error).__name__


def check_environment() -> None:
    """Raise `UsageError` for a wrong environment variable of xpnn, whether the command reads it or not."""
    try:
        environment.check()
        from_environment()
    except ValueError as error:
        raise UsageError(one_line(error)) from error


@contextmanager
def preparing() -> Iterator[None]:
    """Within the ``with`` block a command opens what its options name: errors become `UsageError`, without a traceback.

    The environment variables are checked first.
    """
    check_environment()
    try:
        yield
    except (ValueError, OSError, MemoryError, BackendUnavailable) as error:
        raise UsageError(one_line(error)) from error


def interrupted(
    error: KeyboardInterrupt, done: int, total: int | None, what: str, files: str = "no file was written"
) -> Stopped:
    """The interrupt of a command after ``done`` of ``total`` rows, cases...; ``files`` says what was written."""
    number = status_of(error) - 128
    count = f"{done} of {total}" if total is not None else str(done)
    return Stopped(f"{Stopped.words(number)} after {count} {what}; {files}", number)
