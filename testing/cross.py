"""The cross-mode column of the parity catalogue: a case in all modes, each held against the truth.

The truth is what loops give (`xpnn.testing.loops`), or float64 on NumPy where a layer has none or the case is large.
float64 itself is held against the loops first, so that a fault that all fast ways share is told as one of float64. What
is refused must be refused in every mode, with `ValueError`.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TypeAlias

import numpy as np

from ..backends import Backend, BackendLike, get_backend, overrides
from . import loops, loss_loops
from .cases import Case, LayerCase, LossCase, part_of
from .compare import Host, compare, same_bits
from .modes import KERNELS, Mode, modes
from .parity import TRUTH, Outcome, Parity, Ran, Results, describe, nan_of_exact, run_host, scale_of
from .tolerances import EXACT

# Cells of an input up to which loops are walked.
LARGEST = 3000
# How many bounds in float64 loops may lie apart from what they are compared with; no fault is so small.
LOOPS_ERR = 16.0
#: What a case gave, or why it did not.
Given: TypeAlias = Results | Exception
FLOAT64 = Mode("float64")


class Cross:
    """Runs of cases in all modes of one backend.

    Parameters
    ----------
    backend : str or Backend
        Where they run.
    floor : float
        Least of what counts as the largest value of an array, where its bound is relative to that: of an array of few
        sums all may cancel.
    """

    def __init__(self, backend: BackendLike, floor: float = 0.0) -> None:
        self.backend: Backend = get_backend(backend)
        self.floor = floor
        self.wide = self.backend.has("float64")

    def run(self, case: Case, chosen: Callable[[Mode], bool] = lambda mode: True) -> list[Ran]:
        """A case in float64, and in all modes that suit it, or in those of them that are chosen."""
        if case.dtype == "float64" and not self.wide:
            return []
        truth, looped = attempt(lambda: run_host(case, TRUTH, "float64")), by_loops(case)
        with overrides.using(KERNELS) as met:
            attempt(lambda: run_host(case, get_backend(self.backend, numerics="fast")))
        some = [mode for mode in modes(case, set(met), host=self.backend.is_host, wide=self.wide) if chosen(mode)]
        given = {mode.name: self.given(case, mode) for mode in some}
        if self.backend.spec != "numpy" and "exact" in given:
            given["exact on numpy"] = Cross("numpy").given(case, Mode("exact", numerics="exact"))
        right = truth if looped is None else looped
        ran = [judge(case, mode, given[mode.name], right, given, self.floor) for mode in some]
        return ran if looped is None else [judge(case, FLOAT64, truth, looped, floor=self.floor), *ran]

    def given(self, case: Case, mode: Mode) -> Given:
        """What a case gives in a mode."""
        with overrides.using(mode.ways):
            return attempt(lambda: run_host(mode.of(case), mode.on(self.backend)))

    def add(self, case: Case, parity: Parity) -> Outcome:
        """The outcome of a parity run, and the case in all modes; a case that loops refuse has modes alone."""
        outcome = Outcome(case) if isinstance(by_loops(case), ValueError) else parity.run(case)
        ran = self.run(case)
        problems = [outcome.problem, *(f"in mode {each.mode!r}: {each.problem}" for each in ran if each.problem)]
        return replace(outcome, modes=ran, problem="; ".join(filter(None, problems)))


def attempt(compute: Callable[[], Results]) -> Given:
    """What a computation gives, or the exception that it raises."""
    try:
        return compute()
    except Exception as error:
        return error


def by_loops(case: Case) -> Given | None:
    """What loops give for a case; None where there are none, or the case is large."""
    if not isinstance(case, LayerCase | LossCase) or not case.single or prod(case.shape) > LARGEST:
        return None

    def walk() -> Results:
        with np.errstate(all="ignore"):
            if isinstance(case, LossCase):
                loss, x, target = case.prepare(TRUTH, "float64")
                return loss_loops.opinion(loss, np.asarray(x), np.asarray(target), case.upstream) or {}
            layer, x, _ = case.prepare(TRUTH, "float64")
            return loops.opinion(layer, np.asarray(x), case.upstream, case.training) or {}

    found = attempt(walk)
    return found or None


def judge(
    case: Case, mode: Mode, given: Given, right: Given, others: Mapping[str, Given] | None = None, floor: float = 0.0
) -> Ran:
    """Hold what a mode gave against what is right, and against the mode whose bits it promises."""
    if isinstance(right, Exception) or isinstance(given, Exception):
        return Ran(mode.name, problem=_of_refusals(given, right))
    if mode.numerics == "exact":
        right = {name: nan_of_exact(name, array, given.get(name)) for name, array in right.items()}
    problems, largest = [], 0.0
    if given.keys() != right.keys():
        problems.append(f"gives {', '.join(given)}; expected {', '.join(right)}")
    for name in (name for name in given if name in right):
        array, wanted = given[name], right[name]
        if array.shape != wanted.shape:
            problems.append(f"{name} has shape {array.shape}, expected {wanted.shape}")
            continue
        share, problem = _measure(case, mode, name, array, wanted, max(floor, scale_of(name, right)))
        largest = max(largest, share)
        problems += filter(None, [problem])
    same = mode.same_bits_as(case)
    promised = (others or {}).get(same)
    if promised is not None and not isinstance(promised, Exception):
        differ = [name for name in given if not same_bits(given[name], promised[name])]
        problems += [f"{name} has other bits than in mode {same!r}" for name in differ]
    return Ran(mode.name, largest, "; ".join(problems))


def _measure(case: Case, mode: Mode, name: str, array: Host, wanted: Host, floor: float) -> tuple[float, str]:
    """The share of its bound that an array used, and what is wrong with it."""
    if array.dtype.kind != "f":
        found = compare(array.astype(np.float64), wanted.astype(np.float64), EXACT)
    else:
        part = part_of(name)
        # In float64 loops, which add one number after the other, err more than what is held against them.
        wider = LOOPS_ERR if array.dtype == np.float64 else 1.0
        limit, terms = mode.bound(case, part), mode.terms(case, part)
        found = compare(array, wanted, limit, terms, factor=wider, floor=floor)
    return found.share, "" if found.matches else describe(name, "the truth", found)


def _of_refusals(given: Given, right: Given) -> str:
    """What is wrong where one of two raised; both must raise `ValueError`."""
    if isinstance(given, ValueError) and isinstance(right, ValueError) and _is_raised(given):
        return ""
    told = [f"raises {_line(each)}" if isinstance(each, Exception) else "gives arrays" for each in (given, right)]
    return f"{told[0]}, where the truth {told[1]}"


def _is_raised(error: Exception) -> bool:
    """Whether a line of Python raised an exception, and not the array library in what it was called for."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (where.line or "").startswith("raise ")


def _line(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({where.filename.rpartition('/')[2]}:{where.lineno})"
