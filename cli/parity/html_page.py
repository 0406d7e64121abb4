"""A parity run as one HTML page without external resources: verdict, plots of the errors, a table of all arrays."""

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from math import isfinite

from ...testing.cases import part_of
from ...testing.compare import EDGES
from ...testing.outcomes import Outcome, by_mode
from ...testing.tolerances import PARTS, TABLE
from ..html_report import SCRIPT, STYLE, about, svg, verdict, wide
from .golden_check import GoldenRun

FAILED = ' class="failed"'


def page(
    machine: dict[str, str],
    outcomes: list[Outcome],
    summary: str,
    left_out: str = "",
    golden: Sequence[GoldenRun] = (),
) -> str:
    """The page as HTML text.

    Parameters
    ----------
    machine : dict
    outcomes : list of Outcome
    summary : str
        The verdict in words.
    left_out : str
        Number of cases that did not run, and why.
    golden : sequence of GoldenRun
    """
    found = {run.status for run in golden} | {"passed" if outcome.passed else "failed" for outcome in outcomes}
    kind = "failed" if "failed" in found else "unknown" if "not run" in found or not outcomes else ""
    boxes = verdict(summary, kind)
    boxes += verdict(f"Left out: {left_out}", "unknown") if left_out else ""
    boxes += "".join(verdict(f"Golden run {run}", _KINDS[run.status]) for run in golden if run.status != "passed")
    heads = ("ULP, float64", "relative", "ULP, reference", "of tolerance")
    figures = "".join(f'<th class="n">{each}</th>' for each in heads)
    cases = f"""<table><thead><tr><th>case</th><th>array</th>{figures}<th>same bits</th><th>modes</th></tr></thead>
<tbody class="cases">{"".join(map(_rows, outcomes))}</tbody></table>"""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>xpnn parity</title><style>{STYLE}</style></head><body>
<h1>Parity of {escape(machine["backend"].partition(",")[0])} with {escape(machine["reference"].partition(",")[0])}</h1>
{boxes}
{about(machine)}
<h2>Errors against float64, by operation</h2>
<p>The share of all values that an operation computed, by their distance from the same computation in float64. One
ULP is the distance to the next float32 number, at the array's largest value where sums can cancel.</p>
{histograms(outcomes)}
<h2>Error as a share of the tolerance</h2>
<p>Each dot is one array of one case; above 1 it fails.</p>
{shares(outcomes)}
{modes_table(outcomes)}<h2>All cases</h2>
<p><input id="filter" placeholder="show only names with..." aria-label="filter"></p>
{wide(cases)}
<script>{SCRIPT}</script></body></html>
"""


_KINDS = {"passed": "", "failed": "failed", "not run": "unknown"}


def histograms(outcomes: list[Outcome]) -> str:
    """A plot for each operation: the distribution of errors, forward and gradients."""
    import matplotlib.figure

    counts: dict[str, dict[bool, list[int]]] = defaultdict(dict)
    for outcome in outcomes:
        for measured in outcome.arrays:
            known = counts[outcome.case.op].get(measured.is_forward, [0] * (len(EDGES) + 1))
            added = [a + b for a, b in zip(known, measured.truth.histogram, strict=True)]
            counts[outcome.case.op][measured.is_forward] = added
    ops = [op for op in TABLE if op in counts]
    columns = 3
    rows = -(-len(ops) // columns)
    figure = matplotlib.figure.Figure(figsize=(12, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = ["0", *(_power(edge) for edge in EDGES[1:]), "more"]
    for axis, op in zip(axes, ops, strict=False):
        for forward, label, colour, shift in ((True, "forward", "#2b6cb0", -0.2), (False, "gradients", "#dd6b20", 0.2)):
            found = counts[op].get(forward)
            if found and sum(found):
                heights = [100.0 * n / sum(found) for n in found]
                places = [i + shift for i in range(len(heights))]
                axis.bar(places, heights, width=0.4, color=colour, label=label)
        axis.set_title(op, fontsize=10)
        axis.set_xticks(range(0, len(labels), 3), labels[::3], fontsize=8)
        axis.set_ylabel("% of values", fontsize=8)
        axis.set_xlabel("error in ULP, up to", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(0, 100)
        axis.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axis.legend(fontsize=7, frameon=False)
    for axis in axes[len(ops) :]:
        axis.set_visible(False)
    return svg(figure, "For each operation the share of values by their error in ULP, forward and gradients")


def shares(outcomes: list[Outcome]) -> str:
    """A dot for each array, by operation and part: its error as a share of its tolerance."""
    import matplotlib.figure

    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        for measured in outcome.arrays:
            share = max(measured.truth.share, measured.reference.share)
            found[outcome.case.op, part_of(measured.name)].append(min(share, 10.0) if isfinite(share) else 10.0)
    keys = [(op, part) for op in TABLE for part in PARTS if max(found.get((op, part), [0.0])) > 0.0]
    figure = matplotlib.figure.Figure(figsize=(12, 0.6 + 0.24 * max(len(keys), 1)), layout="constrained")
    axis = figure.subplots()
    for i, key in enumerate(keys):
        values = [value for value in found[key] if value > 0.0]
        axis.plot(values, [i] * len(values), "o", markersize=4, alpha=0.4, color="#2b6cb0")
    axis.axvline(1.0, color="#c0392b", linewidth=1)
    axis.set_xscale("log")
    axis.set_xlim(1e-3, 12.0)
    axis.set_yticks(range(len(keys)), [f"{op}, {part}" for op, part in keys], fontsize=8)
    axis.set_ylim(len(keys) - 0.5, -0.5)
    axis.set_xlabel("share of the tolerance", fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    return svg(figure, "For each operation and part of its result the errors of all arrays, as shares of the tolerance")


def modes_table(outcomes: list[Outcome]) -> str:
    """A table of all modes; empty if the run was only in the backend's own mode."""
    rows = "".join(
        f'<tr{FAILED if total.failed else ""}><td>{escape(total.mode)}</td><td class="n">{total.cases}</td>'
        f'<td class="n">{total.share:.2g}</td><td class="n">{total.failed}</td></tr>'
        for total in by_mode(outcomes)
    )
    head = '<th>mode</th><th class="n">cases</th><th class="n">of tolerance</th><th class="n">failed</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h2>Modes</h2>{wide(table)}" if rows else ""


def _modes(outcome: Outcome) -> str:
    """The number of modes of a case; a click shows their names."""
    names = ", ".join(escape(ran.mode) for ran in outcome.modes)
    return f"<details><summary>{len(outcome.modes)}</summary>{names}</details>" if names else ""


def _power(edge: float) -> str:
    return f"{edge:g}" if edge >= 1 else f"1/{1 / edge:g}"


def _rows(outcome: Outcome) -> str:
    mark = "" if outcome.passed else FAILED
    modes = _modes(outcome)
    if not outcome.arrays:
        text = escape(outcome.problem or "refused, as it has to be")
        return f'<tr{mark}><td>{escape(outcome.case.name)}</td><td colspan="6">{text}</td><td>{modes}</td></tr>'
    lines = []
    for measured in outcome.arrays:
        truth, reference = measured.truth, measured.reference
        figures = (f"{truth.ulps:.3g}", f"{truth.relative:.2g}", f"{reference.ulps:.3g}")
        share = f"{max(truth.share, reference.share):.2g}"
        cells = "".join(f'<td class="n">{figure}</td>' for figure in (*figures, share))
        lines.append(
            f"<tr{mark}><td>{escape(outcome.case.name)}</td><td>{escape(measured.name)}</td>{cells}"
            f"<td>{'yes' if measured.same_bits else 'no'}</td><td>{modes}</td></tr>"
        )
        modes = ""
    if outcome.problem:
        lines.append(f'<tr{mark}><td></td><td colspan="7">{escape(outcome.problem)}</td></tr>')
    return "".join(lines)
