"""The text that `xpnn parity` prints: a row for each case, tables of operations and modes, the last line."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from ...common.terminal import say, say_row
from ...testing.outcomes import Measured, ModeTotals, OperationTotals, Outcome, by_mode, by_operation, worst
from .golden_check import GoldenRun

HEADER = ("case", "forward", "relative", "vs ref", "bits", "ms")
GRADIENTS = (" gradients in ULP against float64", "(against the reference)")
OPERATIONS = ("operation", "cases", "forward, ULP", "gradients, ULP", "of tolerance", "same bits")
MODES = ("mode", "cases", "of tolerance", "failed")


def print_header() -> None:
    """Print the heads of the columns of `row`."""
    say_row(*_cells(*HEADER), *GRADIENTS)


def print_outcome(outcome: Outcome) -> None:
    """Print the row of a case, and why it failed."""
    say_row(*row(outcome))
    if not outcome.passed:
        say(f"    FAILED: {outcome.problem}", indent=8)


def print_totals(outcomes: list[Outcome], *, modes: bool) -> None:
    """Print the table of operations, and with ``modes`` that of modes."""
    for cells in (OPERATIONS, *map(totals_row, by_operation(outcomes))):
        _print_cells(cells, ("<18", ">6", ">13", ">15", ">13", ">10"))
    print()
    if modes:
        for cells in (MODES, *map(mode_row, by_mode(outcomes))):
            _print_cells(cells, ("<36", ">6", ">13", ">7"))
        print()


def _print_cells(cells: Sequence[str], forms: Sequence[str]) -> None:
    say_row(*(f"{cell:{form}}" for cell, form in zip(cells, forms, strict=True)))


def _cells(case: str, forward: str, relative: str, reference: str, bits: str, ms: str) -> list[str]:
    return [f"{case:<52}", f"{forward:>9}", f"{relative:>9}", f"{reference:>8}", f" {bits:<4}", f"{ms:>8}"]


def row(outcome: Outcome) -> list[str]:
    """The cells of a row, each as wide as its column; for a case that must be refused only its name and modes."""
    modes = [f"in {len(outcome.modes)} modes"] if outcome.modes else []
    if not outcome.arrays and outcome.passed:
        return [f"{outcome.case.name:<52}", "refused, as it has to be,", *modes]
    forward = [measured for measured in outcome.arrays if measured.is_forward]
    gradients = [measured for measured in outcome.arrays if not measured.is_forward]
    cells = (
        _number(_largest(forward, "truth", "ulps")),
        _number(_largest(forward, "truth", "relative"), scientific=True),
        _number(_largest(forward, "reference", "ulps")),
    )
    bits, milliseconds = "same" if outcome.same_bits else "no", f"{outcome.seconds * 1e3:.1f}"
    errors = [f" {gradient}" for gradient in _gradients(gradients)]
    return [*_cells(outcome.case.name, *cells, bits, milliseconds), *errors, *modes]


def mode_row(total: ModeTotals) -> tuple[str, ...]:
    """The cells of a row of the table of modes."""
    return (total.mode, str(total.cases), f"{total.share:.0%}", str(total.failed))


def totals_row(totals: OperationTotals) -> tuple[str, ...]:
    """The cells of a row of the table of operations."""
    figures = (_number(totals.forward_ulps), _number(totals.gradient_ulps), f"{totals.share:.0%}")
    return (totals.op, str(totals.cases), *figures, str(totals.same_bits))


def _gradients(gradients: list[Measured]) -> list[str]:
    """The error of each gradient; of more than four only the worst."""
    errors = [f"{m.name} {_number(m.truth.ulps)} ({_number(m.reference.ulps)})" for m in gradients]
    if len(errors) <= 4:
        return errors
    most = max(range(len(gradients)), key=lambda i: gradients[i].truth.ulps)
    return [f"worst of {len(errors)}: {errors[most]}"]


def _largest(arrays: list[Measured], against: str, unit: str) -> float:
    return max((getattr(getattr(measured, against), unit) for measured in arrays), default=0.0)


def _number(value: float, *, scientific: bool = False) -> str:
    if not isfinite(value):
        return "inf"
    if scientific:
        return f"{value:.1e}" if value else "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def summary(outcomes: list[Outcome], left_out: int = 0, runs: Sequence[GoldenRun] = ()) -> str:
    """The last line: counts, worst errors, golden runs."""
    passed = sum(outcome.passed for outcome in outcomes)
    same = sum(outcome.same_bits for outcome in outcomes)
    errors = []
    for kind, forward in (("forward", True), ("gradient", False)):
        found = worst(outcomes, forward=forward)
        if found is not None:
            ulps, case, name = found
            errors.append(f"worst {kind} {_number(ulps)} ULP ({case} {name})")
    counts = f"parity: {len(outcomes)} cases, {passed} passed, {len(outcomes) - passed} failed"
    counts += f", {left_out} left out" if left_out else ""
    statuses = Counter(run.status for run in runs)
    trained = "golden runs: " + ", ".join(f"{n} {status}" for status, n in statuses.items()) if runs else ""
    ran = sum(len(outcome.modes) for outcome in outcomes)
    modes = f"{ran} runs in {len(by_mode(outcomes))} modes" if ran else ""
    parts = (counts, ", ".join(errors), f"{same} with the same bits", modes, trained)
    return "; ".join(part for part in parts if part)
