"""A parity run as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...testing.cases import Case
from ...testing.compare import EDGES
from ...testing.outcomes import Outcome, by_mode, by_operation
from .golden_check import GoldenRun


def report(
    machine: dict[str, str],
    seconds: float,
    verdict: str,
    left_out: Sequence[Case],
    why: str,
    runs: Sequence[GoldenRun],
    outcomes: list[Outcome],
) -> dict[str, Any]:
    """All figures of a run."""
    return {
        "machine": machine,
        "seconds": seconds,
        "summary": verdict,
        "why_left_out": why,
        "left_out": [case.name for case in left_out],
        "golden": [asdict(run) for run in runs],
        "operations": [asdict(totals) for totals in by_operation(outcomes)],
        "modes": [asdict(total) for total in by_mode(outcomes)],
        "histogram_edges_ulps": EDGES,
        "cases": [case_report(outcome) for outcome in outcomes],
    }


def case_report(outcome: Outcome) -> dict[str, Any]:
    """All figures of a case."""
    return {
        "name": outcome.case.name,
        "op": outcome.case.op,
        "dtype": outcome.case.dtype,
        "passed": outcome.passed,
        "problem": outcome.problem,
        "same_bits": outcome.same_bits,
        "seconds": outcome.seconds,
        "arrays": [asdict(measured) for measured in outcome.arrays],
        "modes": [asdict(ran) for ran in outcome.modes],
    }
