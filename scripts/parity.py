"""Prove that a backend computes what another one does: a row for each case, and a verdict."""

import argparse
import json
import platform
import re
import time
from dataclasses import asdict
from math import isfinite
from typing import Any

from ..backends import Backend, get_backend
from ..testing.cases import Case, cases
from ..testing.compare import EDGES
from ..testing.golden import GOLDEN, golden_run
from ..testing.parity import Measured, Outcome, Parity, Totals, by_operation, worst
from .backend_option import add_backend, add_numerics, open_backend
from .errors import Failure, UsageError, ended, preparing, text
from .targets import finite, target, write

HEADER = (
    f"{'case':<52} {'forward':>9} {'relative':>9} {'vs ref':>8}  {'bits':<4} {'ms':>8}  "
    "gradients in ULP against float64 (against the reference)"
)

OPERATIONS = (
    f"{'operation':<20} {'cases':>6} {'forward, ULP':>13} {'gradients, ULP':>15} {'of tolerance':>13} {'same bits':>10}"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn parity`` takes."""
    add_backend(parser, "numpy")
    parser.add_argument("--reference", default="numpy", type=text, metavar="NAME", help="what to compare it with")
    add_numerics(parser)
    parser.add_argument("--filter", default="", metavar="RE", help="only cases whose name this expression finds")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write all figures there")
    parser.add_argument("--html", default=None, type=text, metavar="FILE", help="write a page with plots there")
    parser.add_argument("--list", action="store_true", help="only list the cases")


def run(options: argparse.Namespace) -> None:
    """Run the catalogue; `Failure` if a case is over its tolerance."""
    chosen = choose(options.filter)
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    with preparing():
        backend = open_backend(options.backend, options.numerics, "numpy")
        reference = get_backend(options.reference, numerics=options.numerics)
        files = {name: target(name, getattr(options, name)) for name in ("json", "html")}
    if files["html"] is not None:
        from .pages import require_plots

        with preparing():
            require_plots("--html")
    chosen, left_out = split(chosen, backend, reference)
    if not chosen:
        raise UsageError(f"none of the chosen cases runs on {backend.spec}: {left_out}")
    machine = describe(backend, reference)
    for key, value in machine.items():
        print(f"{key:<10} {value}")
    if left_out:
        print(left_out)
    print(f"\n{HEADER}", flush=True)
    started = time.perf_counter()
    outcomes: list[Outcome] = []

    def shown(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(row(outcome), flush=True)

    try:
        Parity(backend, reference).run_all(chosen, shown)
    except KeyboardInterrupt as error:
        failed = sum(not outcome.passed for outcome in outcomes)
        raise ended(error, len(outcomes), len(chosen), f"cases, {failed} failed") from None
    verdict = summary(outcomes)
    if files["json"] is not None:
        report = {"machine": machine, "seconds": time.perf_counter() - started, "summary": verdict}
        report["operations"] = [asdict(totals) for totals in by_operation(outcomes)]
        report |= {"histogram_edges_ulps": EDGES, "cases": [as_json(outcome) for outcome in outcomes]}
        write(files["json"], json.dumps(finite(report), allow_nan=False) + "\n")
        print(f"wrote {files['json']}")
    if files["html"] is not None:
        from .parity_page import page

        write(files["html"], page(machine, outcomes, verdict))
        print(f"wrote {files['html']}")
    print(f"\n{OPERATIONS}", *map(totals_row, by_operation(outcomes)), "", sep="\n")
    same = True
    if backend.numerics == "exact" and not options.filter:
        same = golden(backend)
    print(verdict)
    if not same or not all(outcome.passed for outcome in outcomes):
        raise Failure


def golden(backend: Backend) -> bool:
    """Train for 200 steps and hold the bits against those that are committed; False if they differ."""
    right = True
    for name, expected in GOLDEN.items():
        try:
            found = golden_run(backend, name)
        except ValueError as error:
            print(f"golden     {name}: left out: {error}")
            continue
        right = right and found == expected
        told = "as committed" if found == expected else f"DIFFERS from the committed {expected[:16]}"
        print(f"golden     {name}, 200 steps on the digits: {found[:16]} {told}")
    return right


def choose(pattern: str) -> list[Case]:
    """Cases whose name the expression finds."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"--filter {pattern!r} is no regular expression: {error}") from error
    chosen = [case for case in cases() if wanted.search(case.name)]
    if not chosen:
        raise UsageError(f"--filter {pattern!r} finds none of the {len(cases())} cases; xpnn parity --list shows them")
    return chosen


def split(chosen: list[Case], *backends: Backend) -> tuple[list[Case], str]:
    """Cases that the backends can run, and why the others are left out."""
    for b in backends:
        wide = b.numerics == "fast" and b.has("float64")
        kept = [case for case in chosen if wide or case.dtype == "float32"]
        if len(kept) < len(chosen):
            why = "exact numerics stores float32" if b.numerics != "fast" else f"{b.spec} has no float64"
            return kept, f"left out   {len(chosen) - len(kept)} cases in float64: {why}"
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


def row(outcome: Outcome) -> str:
    """One line of the table, and one more for what went wrong."""
    forward = [measured for measured in outcome.arrays if measured.is_forward]
    gradients = [measured for measured in outcome.arrays if not measured.is_forward]
    cells = (
        _number(_most(forward, "truth", "ulps")),
        _number(_most(forward, "truth", "relative"), scientific=True),
        _number(_most(forward, "reference", "ulps")),
    )
    text = f"{outcome.case.name:<52} {cells[0]:>9} {cells[1]:>9} {cells[2]:>8}  "
    text += f"{'same' if outcome.same_bits else 'no':<4} {outcome.seconds * 1e3:>8.1f}  {_gradients(gradients)}"
    return text.rstrip() if outcome.passed else f"{text.rstrip()}\n    FAILED: {outcome.problem}"


def totals_row(totals: Totals) -> str:
    """One line of the table of operations."""
    figures = (_number(totals.forward_ulps), _number(totals.gradient_ulps), f"{totals.share:.0%}")
    return (
        f"{totals.op:<20} {totals.cases:>6} {figures[0]:>13} {figures[1]:>15} {figures[2]:>13} {totals.same_bits:>10}"
    )


def _gradients(gradients: list[Measured]) -> str:
    """Each gradient's error; of a net's many only the worst."""
    told = [f"{m.name} {_number(m.truth.ulps)} ({_number(m.reference.ulps)})" for m in gradients]
    if len(told) <= 4:
        return "  ".join(told)
    most = max(range(len(gradients)), key=lambda i: gradients[i].truth.ulps)
    return f"worst of {len(told)}: {told[most]}"


def _most(arrays: list[Measured], against: str, unit: str) -> float:
    return max((getattr(getattr(measured, against), unit) for measured in arrays), default=0.0)


def _number(value: float, *, scientific: bool = False) -> str:
    if not isfinite(value):
        return "inf"
    if scientific:
        return f"{value:.1e}" if value else "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def summary(outcomes: list[Outcome]) -> str:
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
    return "; ".join(part for part in (counts, ", ".join(errors), f"{same} with the same bits") if part)


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
    }
