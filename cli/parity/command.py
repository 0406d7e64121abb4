"""``xpnn parity``: run the catalogue on a backend and on a reference, print each case, write the reports."""

import argparse
import json
import platform
import time
from functools import partial

from ... import __version__
from ...backends import Backend, get_backend
from ...common.files import write_whole
from ...common.terminal import say
from ...testing.cases import Case
from ...testing.mode_runs import ModeRuns
from ...testing.outcomes import Outcome
from ...testing.parity import Parity
from ..argument_types import text
from ..backend_option import add_backend, add_numerics, open_backend
from ..errors import Failure, NotMeasured, UsageError, interrupted, preparing
from ..output_files import finite, targets
from .case_selection import choose, split
from .golden_check import FAILED, NOT_RUN, check_golden_runs
from .json_report import report
from .table import print_header, print_outcome, print_totals, summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn parity``."""
    add_backend(parser, "numpy")
    parser.add_argument("--reference", default="numpy", type=text, metavar="NAME", help="what to compare it with")
    add_numerics(parser)
    parser.add_argument("--filter", default="", metavar="RE", help="only cases whose name this expression finds")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--html", default=None, type=text, metavar="FILE", help="write a page with plots to this file")
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
        from ..html_report import require_matplotlib

        with preparing():
            require_matplotlib("--html")
    cases, why = split(chosen, backend, reference)
    left_out = [case for case in chosen if case not in cases]
    if not cases:
        raise UsageError(f"none of the chosen cases runs on {backend.spec}: {why}")
    machine = describe(backend, reference)
    for key, value in machine.items():
        say(f"{key:<10} {value}", indent=11)
    if why:
        say(f"left out   {why}", indent=11)
    print()
    print_header()
    started = time.perf_counter()
    outcomes = _outcomes(cases, backend, reference, modes=options.modes)
    seconds = time.perf_counter() - started
    print()
    print_totals(outcomes, modes=options.modes)
    runs = check_golden_runs(backend) if backend.numerics == "exact" and not options.filter else []
    for golden_run in runs:
        say(f"golden     {golden_run}", indent=11)
    verdict = summary(outcomes, len(left_out), runs)
    if files["json"] is not None:
        figures = report(machine, seconds, verdict, left_out, why, runs, outcomes)
        write_whole(files["json"], json.dumps(finite(figures), allow_nan=False) + "\n")
        say(f"wrote {files['json']}")
    if files["html"] is not None:
        from .html_page import page

        write_whole(files["html"], page(machine, outcomes, verdict, why, runs))
        say(f"wrote {files['html']}")
    say(verdict)
    if not all(outcome.passed for outcome in outcomes) or any(run.status == FAILED for run in runs):
        raise Failure
    if any(run.status == NOT_RUN for run in runs):
        raise NotMeasured


def _outcomes(cases: list[Case], backend: Backend, reference: Backend, *, modes: bool) -> list[Outcome]:
    """Run the cases, with ``modes`` each in every mode, and print each as it ends."""
    outcomes: list[Outcome] = []
    parity = Parity(backend, reference)
    run_case = partial(ModeRuns(backend).run_with_parity, parity=parity) if modes else parity.run

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print_outcome(outcome)

    try:
        parity.run_all(cases, ended, run_case)
    except KeyboardInterrupt as error:
        failed = sum(not outcome.passed for outcome in outcomes)
        raise interrupted(error, len(outcomes), len(cases), f"cases, {failed} failed") from None
    return outcomes


def describe(backend: Backend, reference: Backend) -> dict[str, str]:
    """Versions, devices and settings of both backends."""

    def of(b: Backend) -> str:
        parts = (f"{b.spec} {b.version()}", f"device {b.device}", b.notes(), f"TF32 {tf32(b)}")
        return ", ".join(part for part in parts if part)

    return {
        "xpnn": f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "backend": of(backend),
        "reference": of(reference),
        "numerics": backend.numerics,
    }


def tf32(b: Backend) -> str:
    """Whether products may be rounded to TF32."""
    return "on" if b.precision == "tf32" else "off"
