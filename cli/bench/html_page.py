"""A benchmark as one HTML page without external resources: verdict, machine, ratios, roofline, tables."""

from html import escape
from typing import Any

from ..html_report import SCRIPT, STYLE, about, verdict, wide
from .comparison import PASSED, WRONG, Row, outcome, summary
from .speed_plots import numbered, ratio_bars, roofline

TITLES = {"net": "Nets", "layer": "Layers", "growth": "Growth"}
COLUMNS = {
    "phase": "",
    "batch": "",
    "ours_ms": ".3f",
    "torch_ms": ".3f",
    "torch_format": "",
    "ratio": ".2f",
    "plain_ratio": ".1f",
    "gflops": ".0f",
    "ours_peak_mb": ".0f",
    "torch_peak_mb": ".0f",
    "relative_error": ".1e",
    "float64_error": ".1e",
    "launches": "",
    "samples": "",
    "discarded": "",
}
# Columns of a disturbed row: times are shown as rough, rates not at all.
TIMES = ("ours_ms", "torch_ms")
RATES = ("ratio", "plain_ratio", "gflops")
HEADS = (
    "phase",
    "batch",
    "ours, ms",
    "PyTorch, ms",
    "format",
    "ratio",
    "textbook",
    "GFLOP/s",
    "peak, MB",
    "PyTorch's",
    "error",
    "in float64",
    "launches",
    "samples",
    "discarded",
)
EXPLAINED = """Medians of samples taken in turn in one process, with the same number of threads. The ratio is PyTorch's
time divided by ours, so above 1 we are faster; the faster of PyTorch's memory formats counts. The error is the norm of
the difference from PyTorch's outputs or gradients divided by their norm. Rounding next to the kink of a ReLU moves the
gradients of a deep net by 1e-3 and more, so these are compared in float64 as well. "Textbook" is the time of a plain
im2col in NumPy divided by ours. Peak memory is that of three steps, less what was resident before the net was built; it
includes code that a library loads meanwhile. A compiled step is recorded once and replayed. Launches are the kernels,
copies and fills of a step on a GPU. A row that other processes disturbed is not measured: its times are rough, with a
~, and it is in no mean and no plot."""


def page(machine: dict[str, Any], rows: list[Row]) -> str:
    """The page as HTML text."""
    kind = {WRONG: "failed", PASSED: ""}.get(outcome(rows), "unknown")
    parts = [_part(kind, [row for row in rows if row.kind == kind]) for kind in TITLES]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>xpnn bench</title><style>{STYLE}</style></head><body>
<h1>{escape(str(machine["backend"]).partition(" ")[0])} beside PyTorch</h1>
{verdict(summary(rows), kind)}
{about(machine)}
<p>{EXPLAINED}</p>
<p><input id="filter" placeholder="show only rows with..." aria-label="filter"></p>
{"".join(parts)}
{_roofline(rows, machine)}
<script>{SCRIPT}</script></body></html>
"""


def _part(kind: str, rows: list[Row]) -> str:
    """Bars and table of the rows of a kind; empty if there are none."""
    if not rows:
        return ""
    heads = "".join(f'<th class="n">{head}</th>' for head in HEADS)
    bars = ratio_bars(rows) if kind != "growth" and any(row.measured_ratio is not None for row in rows) else ""
    table = f"""<table><thead><tr><th>name</th>{heads}</tr></thead>
<tbody class="cases">{"".join(map(_row, rows))}</tbody></table>"""
    return f"<h2>{TITLES[kind]}</h2>\n{bars}\n{wide(table)}\n"


def _row(row: Row) -> str:
    name = row.name if row.size is None else f"{row.name} {row.size}"
    name += f" ({row.optimizer})" if row.optimizer else ""
    name += ", compiled" if row.compiled else ""
    name += ": WRONG" if row.wrong else ""
    cells = "".join(f'<td class="n">{escape(_cell(row, column, form))}</td>' for column, form in COLUMNS.items())
    mark = ' class="failed"' if row.wrong else ' class="unknown"' if row.disturbed else ""
    return f"<tr{mark}><td>{escape(name)}</td>{cells}</tr>"


def _cell(row: Row, column: str, form: str) -> str:
    value = getattr(row, column)
    if row.disturbed and column in RATES:
        return "disturbed" if column == RATES[0] else ""
    if value is None:
        return ""
    return row.time(value, form) if column in TIMES else str(format(value, form))


def _roofline(rows: list[Row], machine: dict[str, Any]) -> str:
    rows = [row for row in rows if not row.disturbed]
    numbers = numbered(rows)
    if not numbers:
        return ""
    key = "; ".join(f"{number} {escape(name)}" for name, number in numbers.items())
    return f"""<h2>Roofline</h2>
<p>Operations of the direct formula per second, over operations per byte of the arrays that a call reads and writes
once. The line is the limit of this machine, measured in the same run: the product of two matrices of 2048 x 2048, and a
copy. Algorithms that save multiplications can be above it.</p>
{roofline(rows, machine)}
<p>{key}</p>"""
