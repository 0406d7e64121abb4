"""Pictures of a run; needs matplotlib."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..training.history import History


def plot_curves(history: History, path: Path, metrics: dict[str, Any]) -> None:
    """Loss and accuracy by epoch, for training and held-out images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, quantity, label in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("cross-entropy", "accuracy"), strict=True
    ):
        for part, name in (("train", "training"), ("validation", "held out")):
            column = f"{part}_{quantity}"
            if column in history:
                axes.plot(history["epoch"], history[column], label=name, marker="." if len(history.rows) == 1 else "")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        if quantity == "loss":
            axes.set_yscale("log")
        else:
            axes.set_ylim(top=1.0)
    figure.suptitle(
        f"{metrics['model']} on {metrics['data']}: {metrics['test_accuracy']:.2%} held out "
        f"({metrics['backend']}, seed {metrics['seed']})"
    )
    figure.savefig(path, dpi=120)
