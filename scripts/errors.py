"""Mistakes of the person at the keyboard, told from mistakes of the program."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..backends import BackendUnavailable


class UsageError(Exception):
    """The command can't do what it was asked to; the message is one line for the person who asked."""


class Failure(Exception):
    """What the command checked is not as it should be; it has said what, and ends with status 1."""


class NotMeasured(Failure):
    """Nothing failed, but not all that was asked for could be run or measured; status 3."""


@contextmanager
def preparing() -> Iterator[None]:
    """While a command opens what it was given: bad values become `UsageError`, so they show no traceback."""
    try:
        yield
    except (ValueError, OSError, BackendUnavailable) as error:
        raise UsageError(" ".join(str(error).split())) from error


def at_least(least: int) -> Callable[[str], int]:
    """An argument that is an integer of at least that."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"takes an integer >= {least}, got {text!r}")
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
