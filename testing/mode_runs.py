"""Runs of a case in all modes of a backend, each compared with the truth.

The truth is the result of the reference implementation (`xpnn.testing.reference`), or float64 on NumPy if a layer has
none or the case is large. float64 itself is compared with the reference implementation first, so a mistake that all
modes share is reported for float64. A case that is refused must be refused in every mode, with `ValueError`.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TypeAlias

import numpy as np

from ..backends import Backend, BackendLike, get_backend, overrides
from .cases import Case, LayerCase, LossCase, part_of
from .compare import Host, compare, same_bits
from .modes import KERNELS, Mode, modes
from .outcomes import ModeOutcome, Outcome
from .parity import TRUTH, Parity, Results, describe_error, error_line, nan_of_exact, run_host, scale_of
from .reference import layer_results, loss_results
from .tolerances import EXACT

# The largest input, in cells, for which loops are run.
LARGEST = 3000
# The factor of bounds in float64, where the error of the loops matters; no fault is that small.
FLOAT64_FACTOR = 16.0
#: The results of a case, or the exception that it raised.
Attempt: TypeAlias = Results | Exception
FLOAT64 = Mode("float64")


class ModeRuns:
    """Runs of cases in all modes of one backend.

    Parameters
    ----------
    backend : str or Backend
        Where they run.
    floor : float
        The least value that counts as the largest value of an array, if its bound is relative to that: in an array of
        few sums all of them may cancel.
    """

    def __init__(self, backend: BackendLike, floor: float = 0.0) -> None:
        self.backend: Backend = get_backend(backend)
        self.floor = floor
        self.has_float64 = self.backend.has("float64")

    def run(self, case: Case, chosen: Callable[[Mode], bool] = lambda mode: True) -> list[ModeOutcome]:
        """Run a case in float64, and in all its modes for which ``chosen(mode)`` is true."""
        if case.dtype == "float64" and not self.has_float64:
            return []
        float64, reference = attempt(lambda: run_host(case, TRUTH, "float64")), by_loops(case)
        with overrides.using(KERNELS) as met:
            attempt(lambda: run_host(case, get_backend(self.backend, numerics="fast")))
        selected = [
            mode
            for mode in modes(case, set(met), is_host=self.backend.is_host, has_float64=self.has_float64)
            if chosen(mode)
        ]
        results = {mode.name: self.run_mode(case, mode) for mode in selected}
        if self.backend.spec != "numpy" and "exact" in results:
            results["exact on numpy"] = ModeRuns("numpy").run_mode(case, Mode("exact", numerics="exact"))
        truth = float64 if reference is None else reference
        judged = [judge(case, mode, results[mode.name], truth, results, self.floor) for mode in selected]
        return judged if reference is None else [judge(case, FLOAT64, float64, reference, floor=self.floor), *judged]

    def run_mode(self, case: Case, mode: Mode) -> Attempt:
        """The results of a case in a mode, or its exception."""
        with overrides.using(mode.choices):
            return attempt(lambda: run_host(mode.of(case), mode.on(self.backend)))

    def run_with_parity(self, case: Case, parity: Parity) -> Outcome:
        """The outcome of a parity run and of all modes; only of the modes for a case that must be refused."""
        outcome = Outcome(case) if isinstance(by_loops(case), ValueError) else parity.run(case)
        ran = self.run(case)
        problems = [outcome.problem, *(f"in mode {each.mode!r}: {each.problem}" for each in ran if each.problem)]
        return replace(outcome, modes=ran, problem="; ".join(filter(None, problems)))


def attempt(compute: Callable[[], Results]) -> Attempt:
    """The results of a computation, or the exception that it raised."""
    try:
        return compute()
    except Exception as error:
        return error


def by_loops(case: Case) -> Attempt | None:
    """The results of the reference implementation; None if there is none or the case is large."""
    if not isinstance(case, LayerCase | LossCase) or not case.single or prod(case.shape) > LARGEST:
        return None

    def compute() -> Results:
        with np.errstate(all="ignore"):
            if isinstance(case, LossCase):
                loss, x, target = case.prepare(TRUTH, "float64")
                return loss_results(loss, np.asarray(x), np.asarray(target), case.upstream) or {}
            layer, x, _ = case.prepare(TRUTH, "float64")
            return layer_results(layer, np.asarray(x), case.upstream, case.training) or {}

    return attempt(compute) or None


def judge(
    case: Case,
    mode: Mode,
    results: Attempt,
    truth: Attempt,
    others: Mapping[str, Attempt] | None = None,
    floor: float = 0.0,
) -> ModeOutcome:
    """Compare the results of a mode with the truth, and with the mode that must have the same bits."""
    if isinstance(truth, Exception) or isinstance(results, Exception):
        return ModeOutcome(mode.name, problem=_refusal_problem(results, truth))
    if mode.numerics == "exact":
        truth = {name: nan_of_exact(name, array, results.get(name)) for name, array in truth.items()}
    problems, largest = [], 0.0
    if results.keys() != truth.keys():
        problems.append(f"returns {', '.join(results)}; expected {', '.join(truth)}")
    for name in (name for name in results if name in truth):
        array, expected = results[name], truth[name]
        if array.shape != expected.shape:
            problems.append(f"{name} has shape {array.shape}, expected {expected.shape}")
            continue
        share, problem = _measure(case, mode, name, array, expected, max(floor, scale_of(name, truth)))
        largest = max(largest, share)
        problems += filter(None, [problem])
    same = mode.same_bits_as(case)
    promised = (others or {}).get(same)
    if promised is not None and not isinstance(promised, Exception):
        differ = [name for name in results if not same_bits(results[name], promised[name])]
        problems += [f"{name} has other bits than in mode {same!r}" for name in differ]
    return ModeOutcome(mode.name, largest, "; ".join(problems))


def _measure(case: Case, mode: Mode, name: str, array: Host, expected: Host, floor: float) -> tuple[float, str]:
    """The error of an array relative to its bound, and the problem if it is larger than 1."""
    if array.dtype.kind != "f":
        found = compare(array.astype(np.float64), expected.astype(np.float64), EXACT)
    else:
        part = part_of(name)
        # In float64 the loops, which add one number after the other, have the larger error.
        factor = FLOAT64_FACTOR if array.dtype == np.float64 else 1.0
        limit, terms = mode.bound(case, part), mode.terms(case, part)
        found = compare(array, expected, limit, terms, factor=factor, floor=floor)
    return found.share, "" if found.matches else describe_error(name, "the truth", found)


def _refusal_problem(results: Attempt, truth: Attempt) -> str:
    """The problem if one of two raised an exception; both must raise `ValueError`."""
    if isinstance(results, ValueError) and isinstance(truth, ValueError) and _is_raised(results):
        return ""
    found, expected = (
        f"raises {error_line(each)}" if isinstance(each, Exception) else "returns arrays" for each in (results, truth)
    )
    return f"{found}, where the truth {expected}"


def _is_raised(error: Exception) -> bool:
    """Whether the exception comes from a ``raise`` in Python and not from compiled code of the array library."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (where.line or "").startswith("raise ")
