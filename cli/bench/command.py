"""What ``xpnn bench`` takes, and what it does with it."""

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends import Backend
from ...common.terminal import say, say_row
from ..backend_option import add_backend, open_backend
from ..errors import Failure, NotMeasured, UsageError, at_least, ended, not_negative, preparing, text
from ..pages import require_plots
from ..targets import append, targets, write
from .growth import growth_rows, plot_growth
from .layers import CASES, layer_rows
from .load import Watch
from .loop import loop_rows
from .machine import describe_machine, measure_limits
from .nets import NETS, OPTIMIZERS, SHORT, net_rows
from .numerics import NETS as NUMERICS_NETS
from .numerics import numerics_rows
from .opponent import Opponent, find_opponent
from .rows import HEADER, NOT_MEASURED, PEAKS, WRONG, Plan, Row, laid_out, outcome, summary
from .threads import same_threads, threads


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn bench`` takes."""
    add_backend(parser, "numpy")
    parser.add_argument("--layers", action="store_true", help="single layers, forward and backward")
    parser.add_argument("--nets", action="store_true", help="whole nets, training steps and inference")
    parser.add_argument("--numerics", action="store_true", help="what exact numerics costs, in nets of three sizes")
    parser.add_argument("--loop", action="store_true", help="what the training loop adds to the steps of a small net")
    parser.add_argument("--only", default="", metavar="NAME", help="only layers and nets whose name contains this")
    parser.add_argument("--optimizer", default="sgd", choices=OPTIMIZERS, help="of the nets' steps")
    parser.add_argument(
        "--batch",
        default=None,
        type=at_least(1),
        metavar="N",
        help="images in a batch; the usual one of each row unless given",
    )
    parser.add_argument(
        "--rounds",
        default=None,
        type=at_least(1),
        metavar="N",
        help="samples of each side; 9 unless given, 5 with --numerics",
    )
    parser.add_argument(
        "--wait", default=20.0, type=not_negative, metavar="S", help="seconds to wait for a quiet machine, each row"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure the peak memory of steps")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--lines", default=None, type=text, metavar="FILE", help="add each row there as it comes, a line of JSON"
    )
    parser.add_argument("--html", default=None, type=text, metavar="FILE", help="write a page with plots there")
    # For the documentation's plots of how cost grows with batch, image and channels.
    parser.add_argument("--growth", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plot", default=None, type=text, metavar="FILE", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Measure what was asked for, print it row by row.

    Raises
    ------
    Failure
        If a result was wrong.
    NotMeasured
        If none was, and other processes disturbed a row.
    """
    with preparing():
        _check(options)
        backend = open_backend(options.backend, default="numpy")
        count = threads()
        files = targets({name: getattr(options, name) for name in ("json", "lines", "html", "plot")})
        for name in ("html", "plot"):
            if files[name] is not None:
                require_plots(f"--{name}")
    opponent, why = find_opponent(backend)
    with ExitStack() as stack:
        stack.enter_context(same_threads(count, None if opponent is None else opponent.torch))
        if opponent is not None:
            stack.enter_context(opponent.settings())
        machine: dict[str, Any] = describe_machine(backend, opponent) | measure_limits(backend, count)
        for key, value in machine.items():
            if value is not None:
                say(f"{key:<14} {value}", indent=15)
        if why:
            say(why)
        if options.numerics or options.loop:
            alone = (
                loop_rows(backend.spec, options.batch, options.rounds or 9)
                if options.loop
                else numerics_rows(backend.spec, options.batch, options.rounds or 5, options.only)
            )
            rows = _printed(alone, files["lines"])
            _write(files, machine, rows)
            if any(row.disturbed for row in rows):
                raise NotMeasured
            return
        print()
        say_row(*laid_out(HEADER), PEAKS)
        rows = _printed(_rows(options, backend, opponent), files["lines"])
    _write(files, machine, rows)
    say(summary(rows))
    found = outcome(rows)
    if found == WRONG:
        raise Failure
    if found == NOT_MEASURED:
        raise NotMeasured


def _check(options: argparse.Namespace) -> None:
    """Options that don't go together, and names that are not there."""
    if options.numerics and (options.layers or options.nets or options.growth or options.html or options.plot):
        raise UsageError("--numerics goes alone, with --only, --batch, --rounds and --json")
    others = options.layers or options.nets or options.growth or options.numerics or options.only
    if options.loop and (others or options.html or options.plot):
        raise UsageError("--loop goes alone, with --batch, --rounds and --json")
    if options.plot and not options.growth:
        raise UsageError("--plot draws what --growth measures")
    if options.growth and (options.layers or options.nets):
        raise UsageError("--growth goes alone, with --rounds, --wait, --no-memory and the files")
    names = (
        list(NUMERICS_NETS) if options.numerics else [case.name for case in (*_layers(options), *_nets(options, ""))]
    )
    if not options.growth and not any(options.only in name for name in names):
        raise UsageError(f"--only {options.only!r} is in no name here; there are: {', '.join(names)}")


def _layers(options: argparse.Namespace) -> tuple[Any, ...]:
    return tuple(case for case in CASES if options.layers)


def _nets(options: argparse.Namespace, only: str) -> list[Any]:
    names: Iterable[str] = NETS if options.nets else () if options.layers else SHORT
    return [NETS[name] for name in names if only in name]


def _rows(options: argparse.Namespace, b: Backend, opponent: Opponent | None) -> Iterable[Row]:
    """All rows that were asked for, one by one."""
    # A GPU has no worker threads that spin on: of a row's time rests would be half.
    plan = Plan(options.rounds or 9, Watch(), options.wait, None if b.is_host else 0.0)
    memory = not options.no_memory
    if options.growth:
        yield from growth_rows(b, opponent, plan, memory)
        return
    nets = _nets(options, options.only)
    yield from net_rows(nets, b, opponent, plan, options.batch, options.optimizer, memory)
    layers = tuple(case for case in _layers(options) if options.only in case.name)
    yield from layer_rows(layers, b, opponent, plan, options.batch)


def _printed(rows: Iterable[Any], lines: Path | None) -> list[Any]:
    """The rows, each printed and added to ``lines`` as it comes, and what was to be said about the machine, once."""
    kept, told = [], set()
    try:
        for row in rows:
            note = getattr(row, "note", "")
            if note and note not in told:
                told.add(note)
                say(f"  {note}")
            if isinstance(row, Row):
                say_row(*row.cells())
                if row.verdict:
                    say(f"    {row.verdict}", indent=8)
            else:
                say(str(row))
            if lines is not None:
                append(lines, asdict(row))
            kept.append(row)
    except KeyboardInterrupt as error:
        rest = "no file was written" if lines is None else f"they are in {lines}, no other file was written"
        raise ended(error, len(kept), None, "rows", rest) from None
    return kept


def _write(files: dict[str, Path | None], machine: dict[str, Any], rows: list[Any]) -> None:
    """The files that were asked for."""
    if files["json"] is not None:
        report = {"machine": machine, "rows": list(map(asdict, rows))}
        write(files["json"], json.dumps(report, indent=2) + "\n")
    if files["html"] is not None:
        from .page import page

        write(files["html"], page(machine, rows))
    if files["plot"] is not None:
        write(files["plot"], plot_growth(rows, f"{machine['backend']} and PyTorch, {machine['processor']}"))
    for file in files.values():
        if file is not None:
            say(f"wrote {file}")
