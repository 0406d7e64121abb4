"""Types of arguments for ``add_argument(type=...)``; a value that is not one is an error in one line."""

import argparse
from collections.abc import Callable


def text(given: str) -> str:
    """Text that is not empty: an empty argument comes from a shell variable that is not set."""
    if not given.strip():
        raise argparse.ArgumentTypeError(f"must not be empty, got {given!r}")
    return given


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """An integer of at least ``least``, and of at most ``most`` if that is given."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            limit = "" if most is None else f" and <= {most}"
            raise argparse.ArgumentTypeError(f"must be an integer >= {least}{limit}, got {text!r}")
        return value

    return parse


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number >= 0, got {text!r}")
    return value


def checkpoint_name(text: str) -> str | int:
    """An argument that is ``best``, ``last`` or a step."""
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, last or a step that has a checkpoint, got {text!r}")
