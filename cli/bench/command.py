"""The options of ``xpnn bench``, and the run: measure, print row by row, write the files."""

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends import Backend
from ...backends.execution.thread_count import thread_count
from ...common.files import write_whole
from ...common.terminal import say, say_row
from ..argument_types import at_least, not_negative, text
from ..backend_option import add_backend, open_backend
from ..errors import Failure, NotMeasured, UsageError, interrupted, preparing
from ..html_report import require_matplotlib
from ..output_files import append, targets
from .comparison import HEADER, NOT_MEASURED, PEAKS, WRONG, Plan, Row, outcome, padded, summary
from .cost_growth import growth_rows
from .exact_cost import NETS as EXACT_COST_NETS
from .exact_cost import numerics_rows
from .growth_plot import plot_growth
from .layers import CASES, layer_rows
from .loop_overhead import loop_rows
from .machine import describe_machine, measure_limits
from .net_steps import NETS, SHORT
from .nets import OPTIMIZERS, net_rows
from .other_processes import Watch
from .pytorch import PyTorch, find_pytorch
from .same_threads import same_threads


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn bench``."""
    parser.epilog = (
        "xpnn bench compiled-step times compiled training steps, xpnn bench distributed those of several processes; "
        "each has its own --help."
    )
    add_backend(parser, "numpy")
    parser.add_argument("--layers", action="store_true", help="single layers, forward and backward")
    parser.add_argument("--nets", action="store_true", help="whole nets, training steps and inference")
    parser.add_argument("--numerics", action="store_true", help="the cost of exact numerics, in nets of three sizes")
    parser.add_argument("--loop", action="store_true", help="the overhead of the training loop for a small net")
    parser.add_argument("--only", default="", metavar="NAME", help="only layers and nets whose name contains this")
    parser.add_argument("--optimizer", default="sgd", choices=OPTIMIZERS, help="optimizer of the nets' steps")
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
        "--wait",
        default=20.0,
        type=not_negative,
        metavar="S",
        help="seconds to wait for an idle machine, each row",
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure the peak memory of steps")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write all figures to this file")
    parser.add_argument(
        "--lines", default=None, type=text, metavar="FILE", help="add each row to this file at once, as a line of JSON"
    )
    parser.add_argument("--html", default=None, type=text, metavar="FILE", help="write a page with plots to this file")
    # For the plots in the documentation: how the cost grows with batch, image and channels.
    parser.add_argument("--growth", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plot", default=None, type=text, metavar="FILE", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Measure what the options request, and print it row by row.

    Raises
    ------
    Failure
        If a result was wrong.
    NotMeasured
        If no result was wrong, but other processes disturbed a row.
    """
    with preparing():
        _check(options)
        backend = open_backend(options.backend, default="numpy")
        count = thread_count()
        files = targets({name: getattr(options, name) for name in ("json", "lines", "html", "plot")})
        for name in ("html", "plot"):
            if files[name] is not None:
                require_matplotlib(f"--{name}")
    pytorch, why = find_pytorch(backend)
    with ExitStack() as stack:
        stack.enter_context(same_threads(count, None if pytorch is None else pytorch.torch))
        if pytorch is not None:
            stack.enter_context(pytorch.settings())
        machine: dict[str, Any] = describe_machine(backend, pytorch) | measure_limits(backend, count)
        for key, value in machine.items():
            if value is not None:
                say(f"{key:<14} {value}", indent=15)
        if why:
            say(why)
        if options.numerics or options.loop:
            measured = (
                loop_rows(backend.spec, options.batch, options.rounds or 9)
                if options.loop
                else numerics_rows(backend.spec, options.batch, options.rounds or 5, options.only)
            )
            rows = _printed(measured, files["lines"])
            _write(files, machine, rows)
            if any(row.disturbed for row in rows):
                raise NotMeasured
            return
        print()
        say_row(*padded(HEADER), PEAKS)
        rows = _printed(_rows(options, backend, pytorch), files["lines"])
    _write(files, machine, rows)
    say(summary(rows))
    found = outcome(rows)
    if found == WRONG:
        raise Failure
    if found == NOT_MEASURED:
        raise NotMeasured


def _check(options: argparse.Namespace) -> None:
    """Raise `UsageError` for options that can't be combined, and for a name that no case has."""
    if options.numerics and (options.layers or options.nets or options.growth or options.html or options.plot):
        raise UsageError("--numerics can only be combined with --only, --batch, --rounds and --json")
    others = options.layers or options.nets or options.growth or options.numerics or options.only
    if options.loop and (others or options.html or options.plot):
        raise UsageError("--loop can only be combined with --batch, --rounds and --json")
    if options.plot and not options.growth:
        raise UsageError("--plot needs --growth, whose rows it draws")
    if options.growth and (options.layers or options.nets):
        raise UsageError("--growth can only be combined with --rounds, --wait, --no-memory and the files")
    names = (
        list(EXACT_COST_NETS) if options.numerics else [case.name for case in (*_layers(options), *_nets(options, ""))]
    )
    if not options.growth and not any(options.only in name for name in names):
        raise UsageError(f"--only {options.only!r} is in no name here; there are: {', '.join(names)}")


def _layers(options: argparse.Namespace) -> tuple[Any, ...]:
    return tuple(case for case in CASES if options.layers)


def _nets(options: argparse.Namespace, only: str) -> list[Any]:
    names: Iterable[str] = NETS if options.nets else () if options.layers else SHORT
    return [NETS[name] for name in names if only in name]


def _rows(options: argparse.Namespace, b: Backend, pytorch: PyTorch | None) -> Iterable[Row]:
    """The rows that the options request, one by one."""
    # On a GPU no worker threads spin, and rests would be half of the time.
    plan = Plan(options.rounds or 9, Watch(), options.wait, None if b.is_host else 0.0)
    memory = not options.no_memory
    if options.growth:
        yield from growth_rows(b, pytorch, plan, memory)
        return
    nets = _nets(options, options.only)
    yield from net_rows(nets, b, pytorch, plan, options.batch, options.optimizer, memory)
    layers = tuple(case for case in _layers(options) if options.only in case.name)
    yield from layer_rows(layers, b, pytorch, plan, options.batch)


def _printed(rows: Iterable[Any], lines: Path | None) -> list[Any]:
    """The rows; each is printed and added to ``lines`` at once, notes on the machine are printed the first time."""
    done: list[Any] = []
    notes = set()
    try:
        for row in rows:
            note = getattr(row, "note", "")
            if note and note not in notes:
                notes.add(note)
                say(f"  {note}")
            if isinstance(row, Row):
                say_row(*row.cells())
                if row.verdict:
                    say(f"    {row.verdict}", indent=8)
            else:
                say(str(row))
            if lines is not None:
                append(lines, asdict(row))
            done.append(row)
    except KeyboardInterrupt as error:
        files = "no file was written" if lines is None else f"they are in {lines}, no other file was written"
        raise interrupted(error, len(done), None, "rows", files) from None
    return done


def _write(files: dict[str, Path | None], machine: dict[str, Any], rows: list[Any]) -> None:
    """Write the files that the options name."""
    if files["json"] is not None:
        report = {"machine": machine, "rows": list(map(asdict, rows))}
        write_whole(files["json"], json.dumps(report, indent=2) + "\n")
    if files["html"] is not None:
        from .html_page import page

        write_whole(files["html"], page(machine, rows))
    if files["plot"] is not None:
        write_whole(files["plot"], plot_growth(rows, f"{machine['backend']} and PyTorch, {machine['processor']}"))
    for file in files.values():
        if file is not None:
            say(f"wrote {file}")
