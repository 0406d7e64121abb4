"""``xpnn train --distributed``: the processes of one run, of which rank 0 prints and writes files."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ...distributed import Group, RankError, init
from ...distributed.single import alone
from ...training.interrupt import Stopped
from ..errors import Failure, UsageError, one_line, preparing
from ..exit_status import Ended

T = TypeVar("T")
ENGINES = ("none", "auto", "mpi", "nccl")


class Refused(Failure):
    """The call was refused, and rank 0 says why."""

    status = 2


def joined(options: argparse.Namespace) -> Group:
    """The group of all processes of the run.

    Raises
    ------
    UsageError
        If MPI or NCCL does not work here.
    """
    if options.distributed == "none":
        return alone()
    try:
        return init(options.distributed)
    except (RuntimeError, ImportError) as error:
        raise UsageError(f"--distributed {options.distributed}: {one_line(error)}") from error


@contextmanager
def together(group: Group) -> Iterator[None]:
    """If one process ends, all do: another rank's failure is `Failure`, and after Ctrl-C only rank 0 prints a line."""
    try:
        yield
    except (UsageError, Refused):
        # On all ranks: `by_all`.
        raise
    except RankError as error:
        # A line about it has been printed, or is now.
        group.report(error)
        raise Failure from error
    except Stopped as error:
        if not group.is_root:
            raise Ended(128 + error.number) from error
        raise
    except Exception as error:
        group.report(error)
        raise


def by_all(group: Group, prepare: Callable[[], T]) -> T:
    """The result of preparing on each rank, if it succeeds on all.

    Raises
    ------
    UsageError, Refused
        If it fails on any: on rank 0 with the first reason, and the rank if it is another one.
    """
    found: list[T] = []
    own: UsageError | None = None
    try:
        with preparing():
            found.append(prepare())
    except UsageError as error:
        own = error
    problems = group.gather("" if own is None else str(own))
    if any(problems):
        rank = next(i for i, each in enumerate(problems) if each)
        if not group.is_root:
            raise Refused
        raise UsageError(problems[0] or f"rank {rank}: {problems[rank]}") from own
    return found[0]


def by_root(group: Group, prepare: Callable[[], T]) -> T | None:
    """The result of preparing on rank 0; None on others, after it has succeeded there."""
    return by_all(group, lambda: prepare() if group.is_root else None)
