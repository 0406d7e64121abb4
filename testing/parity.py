"""The parity run: each case on a backend, held against float64 and against a reference backend.

A case passes if every array is within its bound of the same computation in float64 on NumPy, and within twice that of
the reference backend's (each may err once); in exact numerics it must also hold the reference's bits.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from ..backends import Backend, BackendLike, get_backend
from .cases import Case, part_of
from .compare import Comparison, Host, compare, same_bits
from .tolerances import EXACT, TABLE, bound

Results = dict[str, Host]
TRUTH = get_backend("numpy", "float64", "fast")


@dataclass(frozen=True)
class Measured:
    """One array of a case.

    Attributes
    ----------
    name : str
        ``"y"``, ``"dx"``, ``"dweight"`` and so on.
    truth : Comparison
        Against float64.
    reference : Comparison
        Against the reference backend.
    same_bits : bool
        Whether it holds the reference backend's bits.
    """

    name: str
    truth: Comparison
    reference: Comparison
    same_bits: bool

    @property
    def is_forward(self) -> bool:
        """Whether it is computed forward; the others are gradients."""
        return not self.name.startswith("d")


@dataclass(frozen=True)
class Ran:
    """One mode of a case: see `xpnn.testing.cross`.

    Attributes
    ----------
    mode : str
        Its name.
    share : float
        The largest share of its bound that an array used.
    problem : str
        Why it failed; empty if it passed.
    """

    mode: str
    share: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """One case of a run.

    Attributes
    ----------
    case : Case
    arrays : list of Measured
    seconds : float
        Of the run on the backend, with what it compiles at first.
    problem : str
        Why it failed; empty if it passed.
    modes : list of Ran
        The modes in which it ran beside the backend's own, if that was asked for.
    """

    case: Case
    arrays: list[Measured] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    modes: list[Ran] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all was as it should be."""
        return not self.problem

    @property
    def same_bits(self) -> bool:
        """Whether all arrays hold the reference backend's bits."""
        return bool(self.arrays) and all(measured.same_bits for measured in self.arrays)


def run_host(case: Case, backend: BackendLike, dtype: str | None = None) -> Results:
    """Run a case and bring its arrays to the host."""
    b = case.place(backend, dtype)
    # A case with NaN or infinity means them.
    with np.errstate(all="ignore"):
        found = case.run(b, b.dtype_name)
        b.synchronize()
        return {name: b.to_numpy(array) for name, array in found.items()}


class Parity:
    """Runs of cases on one backend, beside a reference.

    Parameters
    ----------
    backend, reference : str or Backend
        What is tested, and what it is compared with.
    truths : mapping, optional
        Results in float64 by case name, where they are known already.

    What reference and float64 give is kept, so a second run of a case costs one computation.
    """

    def __init__(
        self, backend: BackendLike, reference: BackendLike = "numpy", truths: Mapping[str, Results] | None = None
    ) -> None:
        self.backend: Backend = get_backend(backend)
        self.reference: Backend = get_backend(reference)
        self._truths = dict(truths or {})
        self._references: dict[str, Results] = {}

    @property
    def exact(self) -> bool:
        """Whether both sides promise the same bits."""
        return "fast" not in (self.backend.numerics, self.reference.numerics)

    def run(self, case: Case) -> Outcome:
        """Run a case and judge it; an exception is an outcome too."""
        try:
            started = time.perf_counter()
            found = run_host(case, self.backend)
            seconds = time.perf_counter() - started
            return self.judge(case, found, seconds)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            return Outcome(
                case, problem=f"{type(error).__name__}: {text} ({where.filename.rpartition('/')[2]}:{where.lineno})"
            )

    def run_all(
        self,
        cases: Sequence[Case],
        done: Callable[[Outcome], None] = lambda outcome: None,
        run: Callable[[Case], Outcome] | None = None,
    ) -> list[Outcome]:
        """Run cases in order, by `run` unless another way is given, telling ``done`` of each."""
        outcomes = []
        for case in cases:
            outcomes.append((run or self.run)(case))
            done(outcomes[-1])
        return outcomes

    def truth(self, case: Case) -> Results:
        """The case in float64 on NumPy."""
        if case.name not in self._truths:
            self._truths[case.name] = run_host(case, TRUTH, "float64")
        return self._truths[case.name]

    def judge(self, case: Case, found: Results, seconds: float = 0.0) -> Outcome:
        """Hold what the backend gave for a case against float64 and the reference."""
        truth = self.truth(case)
        if self.exact:
            truth = {name: nan_of_exact(name, array, found.get(name)) for name, array in truth.items()}
        if case.name not in self._references:
            self._references[case.name] = run_host(case, self.reference)
        reference = self._references[case.name]
        problems = []
        if found.keys() != truth.keys() or found.keys() != reference.keys():
            problems.append(f"gives {', '.join(found)}; expected {', '.join(truth)}")
        arrays = []
        for name in (name for name in found if name in truth and name in reference):
            a, t, r = found[name], truth[name], reference[name]
            if a.dtype != r.dtype or a.shape != t.shape or a.shape != r.shape:
                problems.append(f"{name} is {a.dtype.name} {a.shape}, expected {r.dtype.name} {t.shape}")
                continue
            measured = self._measure(case, name, a, t, r, scale_of(name, truth))
            arrays.append(measured)
            for against, comparison in (("float64", measured.truth), (self.reference.spec, measured.reference)):
                if not comparison.matches:
                    problems.append(describe(name, against, comparison))
            if self.exact and not measured.same_bits:
                problems.append(f"{name} has other bits than on {self.reference.spec}")
        return Outcome(case, arrays, seconds, "; ".join(problems))

    def _measure(self, case: Case, name: str, a: Host, truth: Host, reference: Host, floor: float) -> Measured:
        if a.dtype.kind != "f":
            kind = np.float64
            return Measured(
                name,
                compare(a.astype(kind), truth.astype(kind), EXACT),
                compare(a.astype(kind), reference.astype(kind), EXACT),
                same_bits(a, reference),
            )
        part = part_of(name)
        limit, terms = bound(case.op, part), case.terms.get(part, 1)
        # In float64 the reference errs as much as what is tested.
        doubled = 2.0 if a.dtype == np.float64 else 1.0
        return Measured(
            name,
            compare(a, truth, limit, terms, factor=doubled, floor=floor),
            compare(a, reference, limit, terms, factor=2.0, floor=floor),
            same_bits(a, reference),
        )


def nan_of_exact(name: str, truth: Host, found: Host | None) -> Host:
    """The truth with the NaN of exact numerics, which has less to tell than float64.

    A sum gives NaN for an infinity, and a weight gradient has one NaN for all cells of a channel.
    """
    if found is None or found.shape != truth.shape or truth.dtype.kind != "f" or np.isfinite(truth).all():
        return truth
    coarse = np.isnan(found) if part_of(name) == "parameter" else np.isnan(found) & np.isinf(truth)
    return np.where(coarse, np.nan, truth)


def scale_of(name: str, truth: Results) -> float:
    """Largest gradient of the same layer.

    The gradient of a bias may be a sum in which all cancels (a batch norm follows): its errors are those of the
    layer's other gradients.
    """
    layer, dot, _ = name.rpartition(".")
    if not dot or not name.startswith("d"):
        return 0.0
    others = (array for other, array in truth.items() if other.rpartition(".")[0] == layer)
    return max(float(np.abs(array).max(initial=0.0, where=np.isfinite(array))) for array in others)


def describe(name: str, against: str, found: Comparison) -> str:
    """Where and by how much an array misses its bound."""
    if found.ulps == inf:
        size = "NaN or infinity differs"
    else:
        size = f"{found.ulps:.3g} ULP, {found.share:.3g} times what is allowed"
    place = f" at {found.index}" if found.index else ""
    return f"{name} against {against}:{place} got {found.got}, expected {found.wanted} ({size})"


@dataclass(frozen=True)
class Totals:
    """What all cases of one operation came to: the largest of each figure, and how many had the reference's bits."""

    op: str
    cases: int
    forward_ulps: float
    gradient_ulps: float
    share: float
    same_bits: int


def by_operation(outcomes: Sequence[Outcome]) -> list[Totals]:
    """Totals of each operation, in the order of the table of tolerances."""
    found = []
    for op in TABLE:
        of_op = [outcome for outcome in outcomes if outcome.case.op == op]
        arrays = [measured for outcome in of_op for measured in outcome.arrays]
        forward = max((m.truth.ulps for m in arrays if m.is_forward), default=0.0)
        gradient = max((m.truth.ulps for m in arrays if not m.is_forward), default=0.0)
        share = max((max(m.truth.share, m.reference.share) for m in arrays), default=0.0)
        found.append(Totals(op, len(of_op), forward, gradient, share, sum(outcome.same_bits for outcome in of_op)))
    return [totals for totals in found if totals.cases]


@dataclass(frozen=True)
class OfMode:
    """What all cases in one mode came to: how many, the largest share of a bound, and how many failed."""

    mode: str
    cases: int
    share: float
    failed: int


def by_mode(outcomes: Sequence[Outcome]) -> list[OfMode]:
    """Totals of each mode, those with the most cases first."""
    found: dict[str, list[Ran]] = {}
    for outcome in outcomes:
        for ran in outcome.modes:
            found.setdefault(ran.mode, []).append(ran)
    totals = [
        OfMode(name, len(every), max(ran.share for ran in every), sum(bool(ran.problem) for ran in every))
        for name, every in found.items()
    ]
    return sorted(totals, key=lambda total: -total.cases)


def worst(outcomes: Sequence[Outcome], *, forward: bool) -> tuple[float, str, str] | None:
    """The largest error against float64: ULPs, case and array. Arrays with infinite error are left out."""
    found: Iterator[tuple[float, str, str]] = (
        (measured.truth.ulps, outcome.case.name, measured.name)
        for outcome in outcomes
        for measured in outcome.arrays
        if measured.is_forward is forward and measured.truth.ulps < inf
    )
    return max(found, default=None)
