"""Loss, accuracy and learning rate of a training run by epoch."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...training.formatting import number, percent
from ...training.history import History
from .canvas import HELD_OUT, TRAINING, new_figure, save


def plot_curves(history: History, path: Path, metrics: dict[str, Any]) -> None:
    """Draw loss and accuracy by epoch, for training and held-out images, with the best epoch marked; below the rate.

    Parameters
    ----------
    history : History
    path : path
    metrics : dict
        For the title: ``model``, ``data``, ``backend``, ``seed`` and, optional, ``test_accuracy``. ``validation_part``
        and ``test_part`` are the names of the two parts, "held out" unless given.
    """
    with_rate = "lr" in history
    quantities = [q for q in ("loss", "accuracy") if f"train_{q}" in history or f"validation_{q}" in history]
    figure = new_figure(5.0 * len(quantities), 4.4 if with_rate else 3.6, layout="constrained")
    grid = figure.add_gridspec(1 + with_rate, len(quantities), height_ratios=[4, 1] if with_rate else [1])
    for column, quantity in enumerate(quantities):
        _draw(figure.add_subplot(grid[0, column]), history, quantity, _part_name(metrics.get("validation_part")))
    if with_rate:
        axes = figure.add_subplot(grid[1, :])
        axes.step(history["epoch"], history["lr"], where="mid", color="#555555", linewidth=1.2)
        axes.fill_between(history["epoch"], history["lr"], step="mid", color="#555555", alpha=0.12, linewidth=0)
        axes.set(ylabel="learning rate", ylim=(0, 1.15 * max(history["lr"])))
        _by_epoch(axes)
    figure.suptitle(_title(metrics), fontsize=11)
    save(figure, path)


def _part_name(part: str | None) -> str:
    return "held out" if part in (None, "held-out") else str(part)


def _draw(axes: Any, history: History, quantity: str, held_out: str) -> None:
    for part, name, colour in (("train", "training", TRAINING), ("validation", held_out, HELD_OUT)):
        if (column := f"{part}_{quantity}") in history:
            one = "o" if len(history.rows) == 1 else ""
            axes.plot(history["epoch"], history[column], label=name, color=colour, marker=one, linewidth=1.6)
    _mark_best(axes, history, quantity)
    axes.set(ylabel="loss" if quantity == "loss" else "accuracy")
    if quantity == "loss":
        axes.set_yscale("log" if min(_known(history, quantity), default=0.0) > 0.0 else "linear")
    else:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        # A first epoch far below the others would flatten the rest of the curve.
        known = sorted(_known(history, quantity))
        low = min(known[len(known) // 10], 0.9 * known[-1]) if known else 0.0
        axes.set_ylim(max(0.0, low - 0.1 * (1.0 - low)), 1.0 + 0.04 * (1.0 - low))
    _by_epoch(axes)
    axes.legend(frameon=False)


def _mark_best(axes: Any, history: History, quantity: str) -> None:
    """Draw a dot at the epoch with the lowest held-out loss, or the lowest training loss if there is no other."""
    column = next(c for c in (f"validation_{quantity}", f"train_{quantity}") if c in history)
    try:
        best = history.best(next(c for c in ("validation_loss", "train_loss", column) if c in history))
    except ValueError:
        return
    if column not in best:
        return
    label = f"best: {number(best[column])}" if quantity == "loss" else f"then: {percent(best[column])}"
    axes.plot(
        best["epoch"],
        best[column],
        "o",
        color=HELD_OUT if column.startswith("validation") else TRAINING,
        markeredgecolor="black",
        label=f"{label} in epoch {best['epoch']:.0f}",
    )


def _by_epoch(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _known(history: History, quantity: str) -> list[float]:
    columns = (c for c in (f"train_{quantity}", f"validation_{quantity}") if c in history)
    return [value for column in columns for value in history[column] if np.isfinite(value)]


def _title(metrics: dict[str, Any]) -> str:
    accuracy = (
        f": {percent(metrics['test_accuracy'])} {_part_name(metrics.get('test_part'))}"
        if metrics.get("test_accuracy") is not None
        else ""
    )
    return f"{metrics['model']} on {metrics['data']}{accuracy} ({metrics['backend']}, seed {metrics['seed']})"
