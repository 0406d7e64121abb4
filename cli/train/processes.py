"""``xpnn train --distributed``: the processes of one run, of which rank 0 prints and writes files."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ...distributed import Group, RankError, init
from ...training.interrupt import Stopped
from ..errors import Failure, UsageError, one_line, preparing
from ..exit_status import Ended

T = TypeVar("T")
ENGINES = ("none", "auto", "mpi", "nccl")


class Refused(Failure):
    """The call was refused, and rank 0 says why."""

    status = 2


def joined(options: argparse.Namespace) -> Group | None:
    """The group of all processes of the run, if there are several.

    Raises
    ------
    UsageError
        If MPI or NCCL does not work here.
    """
    if options.distributed == "none":
        return None
    try:
        group = init(options.distributed)
    except (RuntimeError, ImportError) as error:
        raise UsageError(f"--distributed {options.distributed}: {one_line(error)}") from error
    return group if group.size > 1 else None


@contextmanager
def together(group: Group | None) -> Iterator[None]:
    """If one process ends, all do: another rank's failure is `Failure`, and after Ctrl-C only rank 0 prints a line."""
    if group is None:
        yield
        return
    try:
        yield
    except (UsageError, Refused):
        # On all ranks: `by_all`.
        raise
    except RankError as error:
        # The line that names the rank has been printed.
        raise Failure from error
    except Stopped as error:
        if not group.is_root:
            raise Ended(128 + error.number) from error
        raise
    except Exception as error:
        group.fail(f"raised {type(error).__name__}: {error}")
        raise


def by_all(group: Group | None, prepare: Callable[[], T]) -> T:
    """The result of preparing on each rank, if it succeeds on all.

    Raises
    ------
    UsageError, Refused
        If it fails on any: on rank 0 with the first reason, and the rank if it is another one.
    """
    if group is None:
        with preparing():
            return prepare()
    found: list[T] = []
    problem = ""
    try:
        with preparing():
            found.append(prepare())
    except UsageError as error:
        problem = str(error)
    problems = group.gather(problem)
    if any(problems):
        rank = next(i for i, each in enumerate(problems) if each)
        if not group.is_root:
            raise Refused
        raise UsageError(problems[0] or f"rank {rank}: {problems[rank]}")
    return found[0]


def by_root(group: Group | None, prepare: Callable[[], T]) -> T | None:
    """The result of preparing on rank 0; None on others, after it has succeeded there."""
    is_root = group is None or group.is_root
    return by_all(group, lambda: prepare() if is_root else None)
