"""The plot of `cost_growth`: time and memory over batch, image and channels. It needs matplotlib."""

from io import BytesIO
from typing import Any

from .comparison import Row

LABELS = {
    "batch": "images in a batch (64 channels, 32 x 32)",
    "image": "height and width (64 channels, batch 4)",
    "channels": "channels (16 x 16, batch 8)",
}


def plot_growth(rows: list[Row], title: str) -> bytes:
    """The figure of `draw_growth` as PNG."""
    png = BytesIO()
    draw_growth(rows, title).savefig(png, dpi=120, format="png")
    return png.getvalue()


def draw_growth(rows: list[Row], title: str) -> Any:
    """A figure with time above and memory below, over batch, image and channels; all axes are logarithmic.

    Lines join measurements; crosses are times that other processes disturbed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    quantities = (("ms", "milliseconds, forward + backward"), ("peak_mb", "peak memory, MB"))
    axes = figure.subplots(2, 3, squeeze=False)
    for i, (quantity, label) in enumerate(quantities):
        for j, name in enumerate(LABELS):
            axis = axes[i][j]
            for side, legend, colour in (
                ("ours", "xpnn", "#2b6cb0"),
                ("torch", "PyTorch, better format", "#dd6b20"),
            ):
                points = [
                    (row.size, getattr(row, f"{side}_{quantity}"), quantity == "ms" and row.disturbed is True)
                    for row in rows
                    if row.name == name
                ]
                known = [(x, y) for x, y, rough in points if x is not None and y is not None and y > 0.0 and not rough]
                if known:
                    axis.plot(*zip(*known, strict=True), "o-", markersize=4, color=colour, label=legend)
                rough = [(x, y) for x, y, disturbed in points if disturbed and x is not None and y is not None]
                if rough:
                    beside = f"{legend}: disturbed, not measured"
                    axis.plot(*zip(*rough, strict=True), "x", markersize=5, color=colour, alpha=0.5, label=beside)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            values = [row.size for row in rows if row.name == name]
            axis.set_xticks(values, [str(value) for value in values])
            axis.minorticks_off()
            axis.set(xlabel=LABELS[name], ylabel=label)
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure
