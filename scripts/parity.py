"""Prove that a backend computes what another one does: a row for each case, and a verdict."""

import argparse
import json
import platform
import re
import time
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from ..backends import Backend, get_backend
from ..backends.terminal import say, say_row
from ..testing.cases import Case, cases
from ..testing.compare import EDGES
from ..testing.golden import GOLDEN, golden_run
from ..testing.parity import Measured, Outcome, Parity, Totals, by_operation, worst
from .errors import Failure, UsageError, preparing
from .targets import finite

HEADER = ("case", "forward", "relative", "vs ref", "bits", "ms")
GRADIENTS = (" gradients in ULP against float64", "(against the reference)")
OPERATIONS = ("operation", "cases", "forward, ULP", "gradients, ULP", "of tolerance", "same bits")


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn parity`` takes."""
    parser.add_argument("--backend", default=None, help="what to test; the default backend unless given")
    parser.add_argument("--reference", default="numpy", help="what to compare it with")
    parser.add_argument("--numerics", default=None, help="fast, or exact: then the bits must be the same")
    parser.add_argument("--filter", default="", metavar="RE", help="only cases whose name this expression finds")
    parser.add_argument("--json", default=None, metavar="FILE", help="write all figures there")
    parser.add_argument("--html", default=None, metavar="FILE", help="write a page with plots there")
    parser.add_argument("--list", action="store_true", help="only list the cases")


def run(options: argparse.Namespace) -> None:
    """Run the catalogue; `Failure` if a case is over its tolerance."""
    chosen = choose(options.filter)
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    with preparing():
        backend = get_backend(options.backend, numerics=options.numerics)
        reference = get_backend(options.reference, numerics=options.numerics)
        files = {name: _target(name, getattr(options, name)) for name in ("json", "html")}
    if files["html"] is not None:
        from .pages import require_plots

        with preparing():
            require_plots("--html")
    chosen, left_out = split(chosen, backend, reference)
    if not chosen:
        raise UsageError(f"none of the chosen cases runs on {backend.spec}: {left_out}")
    machine = describe(backend, reference)
    for key, value in machine.items():
        say(f"{key:<10} {value}", indent=11)
    if left_out:
        say(left_out, indent=11)
    print()
    say_row(*_cells(*HEADER), *GRADIENTS)
    started = time.perf_counter()
    outcomes = Parity(backend, reference).run_all(chosen, tell)
    verdict = summary(outcomes)
    if files["json"] is not None:
        report = {"machine": machine, "seconds": time.perf_counter() - started, "summary": verdict}
        report["operations"] = [asdict(totals) for totals in by_operation(outcomes)]
        report |= {"histogram_edges_ulps": EDGES, "cases": [as_json(outcome) for outcome in outcomes]}
        files["json"].write_text(json.dumps(finite(report), allow_nan=False) + "\n", encoding="utf-8")
        say(f"wrote {files['json']}")
    if files["html"] is not None:
        from .parity_page import page

        files["html"].write_text(page(machine, outcomes, verdict), encoding="utf-8")
        say(f"wrote {files['html']}")
    print()
    for cells in (OPERATIONS, *map(totals_row, by_operation(outcomes))):
        say_row(
            *(f"{cell:{form}}" for cell, form in zip(cells, ("<18", ">6", ">13", ">15", ">13", ">10"), strict=True))
        )
    print()
    same = True
    if backend.numerics == "exact" and not options.filter:
        same = golden(backend)
    say(verdict)
    if not same or not all(outcome.passed for outcome in outcomes):
        raise Failure


def golden(backend: Backend) -> bool:
    """Train for 200 steps and hold the bits against those that are committed; False if they differ."""
    right = True
    for name, expected in GOLDEN.items():
        try:
            found = golden_run(backend, name)
        except ValueError as error:
            say(f"golden     {name}: left out: {error}", indent=11)
            continue
        right = right and found == expected
        told = "as committed" if found == expected else f"DIFFERS from the committed {expected[:16]}"
        say(f"golden     {name}, 200 steps on the digits: {found[:16]} {told}", indent=11)
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


def _target(option: str, path: str | None) -> Path | None:
    """A file to write, once it is sure that it can be written."""
    if path is None:
        return None
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"--{option} {path}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise ValueError(f"--{option} {path} is a folder; name a file")
    return target


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
    """The cells of a row of the table, each as wide as its column."""
    forward = [measured for measured in outcome.arrays if measured.is_forward]
    gradients = [measured for measured in outcome.arrays if not measured.is_forward]
    cells = (
        _number(_most(forward, "truth", "ulps")),
        _number(_most(forward, "truth", "relative"), scientific=True),
        _number(_most(forward, "reference", "ulps")),
    )
    bits, milliseconds = "same" if outcome.same_bits else "no", f"{outcome.seconds * 1e3:.1f}"
    told = [f" {gradient}" for gradient in _gradients(gradients)]
    return [*_cells(outcome.case.name, *cells, bits, milliseconds), *told]


def totals_row(totals: Totals) -> tuple[str, ...]:
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
