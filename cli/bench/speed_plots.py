"""Plots of a benchmark, which need matplotlib: bars of the ratios to PyTorch, and the roofline."""

from typing import Any

from ..html_report import svg
from .comparison import Row

OURS, TORCH, LINE = "#2b6cb0", "#dd6b20", "#c0392b"
COLOURS = {"forward": "#2b6cb0", "backward": "#dd6b20", "step": "#2a8f4b", "inference": "#805ad5"}


def ratio_bars(rows: list[Row]) -> str:
    """An SVG with a bar from 1 to the ratio of each measured row; right of the line we are faster."""
    return svg(
        draw_ratios(rows), "For each row a bar from 1 to its ratio, PyTorch's time by ours; the table has the figures"
    )


def roofline(rows: list[Row], machine: dict[str, Any]) -> str:
    """An SVG of operations per second over arithmetic intensity, with the limits of the machine."""
    return svg(
        draw_roofline(rows, machine), "Operations per second over operations per byte, below the limits of the machine"
    )


def draw_ratios(rows: list[Row]) -> Any:
    """`ratio_bars` as a figure."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.measured_ratio is not None]
    names = list(dict.fromkeys(_label(row) for row in shown))
    figure = Figure(figsize=(12, 1.1 + 0.19 * len(shown) + 0.1 * len(names)), layout="constrained")
    axis = figure.subplots()
    place, middles = 0.0, []
    for name in names:
        group = [row for row in shown if _label(row) == name]
        middles.append(place + 0.5 * (len(group) - 1))
        for row in group:
            ratio = row.ratio or 1.0
            label = None if row.phase in axis.get_legend_handles_labels()[1] else row.phase
            axis.barh(place, ratio - 1.0, left=1.0, height=0.85, color=COLOURS.get(row.phase, OURS), label=label)
            beside, side = (ratio * 1.02, "left") if ratio >= 1.0 else (ratio * 0.98, "right")
            axis.text(beside, place, f"{ratio:.2f}", va="center", ha=side, fontsize=7)
            place += 1.0
        place += 0.6
    ratios = [row.ratio for row in shown if row.ratio is not None]
    axis.axvline(1.0, color=LINE, linewidth=1)
    axis.set_xscale("log")
    axis.set_xlim(min([0.5, *ratios]) * 0.8, max([2.0, *ratios]) * 1.25)
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if tick >= min([0.5, *ratios]) * 0.8]
    ticks = [tick for tick in ticks if tick <= max([2.0, *ratios]) * 1.25]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(middles, names, fontsize=8)
    axis.set_ylim(place - 0.6, -1.0)
    axis.set_xlabel("PyTorch's time by ours: to the right of 1 we are faster", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    if shown:
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def draw_roofline(rows: list[Row], machine: dict[str, Any]) -> Any:
    """`roofline` as a figure: forward and backward side by side, layers with their numbers from `numbered`."""
    from matplotlib.figure import Figure

    numbers = numbered(rows)
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for axis, phase in zip(figure.subplots(1, 2, sharey=True), ("forward", "backward"), strict=True):
        shown = [row for row in rows if row.phase == phase and row.name in numbers and row.bytes and row.gflops]
        for row in shown:
            intensity = (row.flops or 0) / (row.bytes or 1)
            if row.torch_gflops:
                ends = (row.gflops, row.torch_gflops)
                axis.plot((intensity,) * 2, ends, color="#8888", linewidth=0.8, zorder=1)
                axis.plot(intensity, row.torch_gflops, "o", markersize=5, markerfacecolor="white", color=TORCH)
            axis.plot(intensity, row.gflops, "o", markersize=5, color=OURS)
            place = (intensity, row.gflops or 1.0)
            axis.annotate(str(numbers[row.name]), place, (4, 3), textcoords="offset points", fontsize=7)
        _roof(axis, shown, machine)
        axis.plot([], [], "o", color=OURS, label="xpnn")
        axis.plot([], [], "o", color=TORCH, markerfacecolor="white", label="PyTorch")
        axis.set_title(phase, fontsize=10)
        axis.set_xlabel("operations per byte of the arrays read and written", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
        if phase == "forward":
            axis.set_ylabel("GFLOP/s", fontsize=8)
    return figure


def numbered(rows: list[Row]) -> dict[str, int]:
    """The number of each layer in the roofline."""
    names = dict.fromkeys(row.name for row in rows if row.kind == "layer" and row.gflops and row.bytes)
    return {name: i + 1 for i, name in enumerate(names)}


def _roof(axis: Any, rows: list[Row], machine: dict[str, Any]) -> None:
    """Draw the limit: the lower of peak and bandwidth times intensity."""
    peak, bandwidth = machine["gemm_gflops"], machine["copy_gb_per_s"]
    places = [(row.flops or 1) / (row.bytes or 1) for row in rows] or [1.0]
    edge = peak / bandwidth
    ends = (min([*places, edge]) * 0.6, max([*places, edge]) * 1.6)
    axis.plot((ends[0], edge, ends[1]), (ends[0] * bandwidth, peak, peak), color=LINE, linewidth=1)
    axis.text(edge, peak * 1.06, f"{peak:g} GFLOP/s, {bandwidth:g} GB/s", fontsize=7, color=LINE)
    axis.set_xscale("log")
    axis.set_yscale("log")


def _label(row: Row) -> str:
    return f"{row.name}, batch {row.batch}"
