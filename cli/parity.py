"""Prove that a backend computes what another one does: a row for each case, and a verdict."""

import argparse
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import Any

from ..backends import Backend, get_backend
from ..common.terminal import say, say_row
from ..testing.cases import Case, cases, pool_corners
from ..testing.compare import EDGES
from ..testing.mode_runs import ModeRuns
from ..testing.outcomes import Measured, ModeTotals, OperationTotals, Outcome, by_mode, by_operation, worst
from ..testing.parity import Parity
from .backend_option import add_backend, add_numerics, open_backend
from .errors import Failure, NotMeasured, UsageError, ended, preparing, text
from .golden_runs import FAILED, NOT_RUN, GoldenRun, golden
from .targets import finite, targets, write

HEADER = ("case", "forward", "relative", "vs ref", "bits", "ms")
GRADIENTS = (" gradients in ULP against float64", "(against the reference)")
OPERATIONS = ("operation", "cases", "forward, ULP", "gradients, ULP", "of tolerance", "same bits")


MODES = ("mode", "cases", "of tolerance", "failed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn parity`` takes."""
    add_backend(parser, "numpy")
    parser.add_argument("--reference", default="numpy", type=text, metavar="NAME", help="what to compare it with")
    add_numerics(parser)
    parser.add_argument("--filter", default="", metavar="RE", help="only cases whose name this expression finds")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write all figures there")
    parser.add_argument("--html", default=None, type=text, metavar="FILE", help="write a page with plots there")
    parser.add_argument(
        "--modes",
        action="store_true",
        help="run each case in every mode too: numerics, kernels, algorithms, blocks, memory layouts; takes minutes",
    )
    parser.add_argument("--list", action="store_true", help="only list the cases")


def run(options: argparse.Namespace) -> None:
    """Run the catalogue.

    Raises
    ------
    Failure
        If a case is over its tolerance, or a golden run has other bits.
    NotMeasured
        If nothing failed, but a golden run can't be made here.
    """
    chosen = choose(options.filter, modes=options.modes)
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    with preparing():
        backend = open_backend(options.backend, options.numerics, "numpy")
        reference = get_backend(options.reference, numerics=options.numerics)
        files = targets({name: getattr(options, name) for name in ("json", "html")})
    if files["html"] is not None:
        from .pages import require_plots

        with preparing():
            require_plots("--html")
    kept, why = split(chosen, backend, reference)
    left_out = [case for case in chosen if case not in kept]
    chosen = kept
    if not chosen:
        raise UsageError(f"none of the chosen cases runs on {backend.spec}: {why}")
    machine = describe(backend, reference)
    for key, value in machine.items():
        say(f"{key:<10} {value}", indent=11)
    if why:
        say(f"left out   {why}", indent=11)
    print()
    say_row(*_cells(*HEADER), *GRADIENTS)
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    parity = Parity(backend, reference)
    way = partial(ModeRuns(backend).add, parity=parity) if options.modes else parity.run

    def shown(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    try:
        parity.run_all(chosen, shown, way)
    except KeyboardInterrupt as error:
        failed = sum(not outcome.passed for outcome in outcomes)
        raise ended(error, len(outcomes), len(chosen), f"cases, {failed} failed") from None
    seconds = time.perf_counter() - started
    print()
    for cells in (OPERATIONS, *map(totals_row, by_operation(outcomes))):
        say_row(
            *(f"{cell:{form}}" for cell, form in zip(cells, ("<18", ">6", ">13", ">15", ">13", ">10"), strict=True))
        )
    print()
    if options.modes:
        for cells in (MODES, *map(mode_row, by_mode(outcomes))):
            say_row(*(f"{cell:{form}}" for cell, form in zip(cells, ("<36", ">6", ">13", ">7"), strict=True)))
        print()
    runs = golden(backend) if backend.numerics == "exact" and not options.filter else []
    for run in runs:
        say(f"golden     {run}", indent=11)
    verdict = summary(outcomes, len(left_out), runs)
    if files["json"] is not None:
        report = {"machine": machine, "seconds": seconds, "summary": verdict, "why_left_out": why}
        report |= {"left_out": [case.name for case in left_out], "golden": [asdict(run) for run in runs]}
        report["operations"] = [asdict(totals) for totals in by_operation(outcomes)]
        report["modes"] = [asdict(total) for total in by_mode(outcomes)]
        report |= {"histogram_edges_ulps": EDGES, "cases": [as_json(outcome) for outcome in outcomes]}
        write(files["json"], json.dumps(finite(report), allow_nan=False) + "\n")
        say(f"wrote {files['json']}")
    if files["html"] is not None:
        from .parity_page import page

        write(files["html"], page(machine, outcomes, verdict, why, runs))
        say(f"wrote {files['html']}")
    say(verdict)
    if not all(outcome.passed for outcome in outcomes) or any(run.status == FAILED for run in runs):
        raise Failure
    if any(run.status == NOT_RUN for run in runs):
        raise NotMeasured


def choose(pattern: str, *, modes: bool = False) -> list[Case]:
    """Cases whose name the expression finds; with ``modes`` of the corners of pooling too."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"--filter {pattern!r} is no regular expression: {error}") from error
    known = [*cases(), *(pool_corners() if modes else ())]
    chosen = [case for case in known if wanted.search(case.name)]
    if not chosen:
        raise UsageError(f"--filter {pattern!r} finds none of the {len(known)} cases; xpnn parity --list shows them")
    return chosen


def split(chosen: list[Case], *backends: Backend) -> tuple[list[Case], str]:
    """Cases that the backends can run, and why the others are left out."""
    for b in backends:
        wide = b.numerics == "fast" and b.has("float64")
        kept = [case for case in chosen if wide or case.dtype == "float32"]
        if len(kept) < len(chosen):
            why = "exact numerics stores float32" if b.numerics != "fast" else f"{b.spec} has no float64"
            return kept, f"{len(chosen) - len(kept)} cases in float64: {why}"
    return chosen, ""


def describe(backend: Backend, reference: Backend) -> dict[str, str]:
    """What is compared, where."""
    from .. import __version__

    def told(b: Backend) -> str:
        parts = (f"{b.spec} {b.version()}", f"device {b.device}", b.notes(), f"TF32 {tf32(b)}")
        return ", ".join(part for part in parts if part)

    return {
        "xpnn": f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "backend": told(backend),
        "reference": told(reference),
        "numerics": backend.numerics,
    }


def tf32(b: Backend) -> str:
    """Whether products may be rounded to TF32."""
    return "on" if b.precision == "tf32" else "off"


def tell(outcome: Outcome) -> None:
    """Print the row of a case, and what went wrong."""
    say_row(*row(outcome))
    if not outcome.passed:
        say(f"    FAILED: {outcome.problem}", indent=8)


def _cells(case: str, forward: str, relative: str, reference: str, bits: str, ms: str) -> list[str]:
    return [f"{case:<52}", f"{forward:>9}", f"{relative:>9}", f"{reference:>8}", f" {bits:<4}", f"{ms:>8}"]


def row(outcome: Outcome) -> list[str]:
    """The cells of a row of the table, each as wide as its column; of a case that is refused its name and its modes."""
    modes = [f"in {len(outcome.modes)} modes"] if outcome.modes else []
    if not outcome.arrays and outcome.passed:
        return [f"{outcome.case.name:<52}", "refused, as it has to be,", *modes]
    forward = [measured for measured in outcome.arrays if measured.is_forward]
    gradients = [measured for measured in outcome.arrays if not measured.is_forward]
    cells = (
        _number(_most(forward, "truth", "ulps")),
        _number(_most(forward, "truth", "relative"), scientific=True),
        _number(_most(forward, "reference", "ulps")),
    )
    bits, milliseconds = "same" if outcome.same_bits else "no", f"{outcome.seconds * 1e3:.1f}"
    told = [f" {gradient}" for gradient in _gradients(gradients)]
    return [*_cells(outcome.case.name, *cells, bits, milliseconds), *told, *modes]


def mode_row(total: ModeTotals) -> tuple[str, ...]:
    """The cells of a row of the table of modes."""
    return (total.mode, str(total.cases), f"{total.share:.0%}", str(total.failed))


def totals_row(totals: OperationTotals) -> tuple[str, ...]:
    """The cells of a row of the table of operations."""
    figures = (_number(totals.forward_ulps), _number(totals.gradient_ulps), f"{totals.share:.0%}")
    return (totals.op, str(totals.cases), *figures, str(totals.same_bits))


def _gradients(gradients: list[Measured]) -> list[str]:
    """Each gradient's error; of a net's many only the worst."""
    told = [f"{m.name} {_number(m.truth.ulps)} ({_number(m.reference.ulps)})" for m in gradients]
    if len(told) <= 4:
        return told
    most = max(range(len(gradients)), key=lambda i: gradients[i].truth.ulps)
    return [f"worst of {len(told)}: {told[most]}"]


def _most(arrays: list[Measured], against: str, unit: str) -> float:
    return max((getattr(getattr(measured, against), unit) for measured in arrays), default=0.0)


def _number(value: float, *, scientific: bool = False) -> str:
    if not isfinite(value):
        return "inf"
    if scientific:
        return f"{value:.1e}" if value else "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def summary(outcomes: list[Outcome], left_out: int = 0, runs: Sequence[GoldenRun] = ()) -> str:
    """The last line."""
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
    told = Counter(run.status for run in runs)
    trained = "golden runs: " + ", ".join(f"{n} {status}" for status, n in told.items()) if runs else ""
    ran = sum(len(outcome.modes) for outcome in outcomes)
    modes = f"{ran} runs in {len(by_mode(outcomes))} modes" if ran else ""
    parts = (counts, ", ".join(errors), f"{same} with the same bits", modes, trained)
    return "; ".join(part for part in parts if part)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """All that is known of an outcome."""
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
