"""What a parity run measured: of each array, case and mode, and totals of operations and modes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from .cases import Case
from .compare import Comparison
from .tolerances import TABLE


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
        Whether it has the same bits as on the reference backend.
    """

    name: str
    truth: Comparison
    reference: Comparison
    same_bits: bool

    @property
    def is_forward(self) -> bool:
        """Whether it is computed in the forward; all others are gradients."""
        return not self.name.startswith("d")


@dataclass(frozen=True)
class ModeOutcome:
    """One case in one mode: see `xpnn.testing.mode_runs`.

    Attributes
    ----------
    mode : str
        Its name.
    share : float
        The largest error of an array, relative to its bound.
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
        Time of the run on the backend, including compilation.
    problem : str
        Why it failed; empty if it passed.
    modes : list of ModeOutcome
        The modes in which it ran in addition, if requested.
    """

    case: Case
    arrays: list[Measured] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    modes: list[ModeOutcome] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there was no problem."""
        return not self.problem

    @property
    def same_bits(self) -> bool:
        """Whether all arrays have the same bits as on the reference backend."""
        return bool(self.arrays) and all(measured.same_bits for measured in self.arrays)


@dataclass(frozen=True)
class OperationTotals:
    """All cases of one operation: the largest of each figure, and how many had the bits of the reference backend."""

    op: str
    cases: int
    forward_ulps: float
    gradient_ulps: float
    share: float
    same_bits: int


def by_operation(outcomes: Sequence[Outcome]) -> list[OperationTotals]:
    """Totals of each operation, in the order of the table of tolerances."""
    found = []
    for op in TABLE:
        of_op = [outcome for outcome in outcomes if outcome.case.op == op]
        arrays = [measured for outcome in of_op for measured in outcome.arrays]
        forward = max((m.truth.ulps for m in arrays if m.is_forward), default=0.0)
        gradient = max((m.truth.ulps for m in arrays if not m.is_forward), default=0.0)
        share = max((max(m.truth.share, m.reference.share) for m in arrays), default=0.0)
        same_bits = sum(outcome.same_bits for outcome in of_op)
        found.append(OperationTotals(op, len(of_op), forward, gradient, share, same_bits))
    return [totals for totals in found if totals.cases]


@dataclass(frozen=True)
class ModeTotals:
    """All cases in one mode: how many, the largest error relative to its bound, and how many failed."""

    mode: str
    cases: int
    share: float
    failed: int


def by_mode(outcomes: Sequence[Outcome]) -> list[ModeTotals]:
    """Totals of each mode, those with the most cases first."""
    found: dict[str, list[ModeOutcome]] = {}
    for outcome in outcomes:
        for ran in outcome.modes:
            found.setdefault(ran.mode, []).append(ran)
    totals = [
        ModeTotals(name, len(every), max(ran.share for ran in every), sum(bool(ran.problem) for ran in every))
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
