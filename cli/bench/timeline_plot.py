"""The picture of a step of a rank: when it computed, and when its buckets of gradients were exchanged."""

from io import BytesIO
from typing import Any


def plot_timeline(timeline: dict[str, Any], title: str) -> bytes:
    """A PNG of a step and its exchanges, in milliseconds from its beginning. It needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buckets = timeline["buckets"]
    figure = Figure(figsize=(8, 1.6 + 0.28 * (len(buckets) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    start, end = timeline["step"]
    axis.barh(0, (end - start) * 1e3, color="#2b6cb0", label="forward, backward and update")
    for row, (first, last) in enumerate(buckets, 1):
        label = "exchange of a bucket" if row == 1 else None
        axis.barh(row, (last - first) * 1e3, left=first * 1e3, color="#dd6b20", label=label)
    if buckets:
        axis.axvline(buckets[-1][0] * 1e3, color="black", linewidth=1, linestyle="--", label="backward ends")
    axis.set_yticks(range(len(buckets) + 1), ["step", *(f"bucket {row}" for row in range(1, len(buckets) + 1))])
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds")
    axis.set_title(title)
    axis.legend(loc="lower left", fontsize=9)
    png = BytesIO()
    figure.savefig(png, dpi=120, format="png")
    return png.getvalue()
