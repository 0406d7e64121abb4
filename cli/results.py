"""What a run leaves: figures and pictures."""

import argparse
import sys
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ..layers.core.layer import Layer
from ..training.data_loader import DataLoader
from ..training.datasets import Dataset
from ..training.evaluation import predict
from ..training.formatting import clock, percent, size, summary_table
from ..training.history import History
from .run_folder import ACTIVATIONS, CONFUSION, CURVES, FILTERS
from .trained import confusion, describe

__all__ = ["counted", "describe", "metrics", "part_names", "pictures", "summary"]


def part_names(data: Dataset) -> tuple[str, str]:
    """What the parts are called that a run looks at while it trains, and that is measured at its end."""
    return ("held-out", "held-out") if data.x_valid is None else ("validation", "test")


# By which the best epoch, and with it the best checkpoint, is chosen everywhere.
METRIC = "validation_loss"


def metrics(
    options: argparse.Namespace,
    data: Dataset,
    model: Layer,
    history: History,
    measured: dict[str, float],
    looked_at: dict[str, float],
) -> dict[str, Any]:
    """Figures of a run, for ``metrics.json``: of the part that is measured, and of the one looked at for choosing.

    With two parts these are the same, and ``validation_part`` and ``test_part`` say so.
    """
    b = model.backend
    chosen_on, measured_on = part_names(data)
    return {
        "validation_part": chosen_on,
        "validation_accuracy": looked_at["accuracy"],
        "validation_loss": looked_at["loss"],
        "test_part": measured_on,
        "test_accuracy": measured["accuracy"],
        "test_loss": measured["loss"],
        "backend": b.spec,
        "numerics": b.numerics,
        "seed": options.seed,
        "epochs": len(history.rows),
        "seconds": sum(history["seconds"]),
        "model": options.model,
        "data": data.name,
        "batch": options.batch,
        "lr": options.lr,
        "optimizer": options.optimizer,
        "best_epoch": best_epoch(history),
        "weights_of_epoch": best_epoch(history) if options.patience else history.rows[-1]["epoch"],
        "peak_bytes": b.memory()["peak"],
    }


def counted(data: Dataset) -> str:
    """How many images are for what."""
    train = f"{len(data.y_train):,} images for training"
    if data.y_valid is None:
        return f"{train}, {len(data.y_test):,} held out"
    return f"{train}, {len(data.y_valid):,} for validation, {len(data.y_test):,} for testing"


def best_epoch(history: History) -> int:
    """The epoch of the lowest loss on the part that is looked at, of equals the first; the last where all are NaN."""
    finite = [loss for loss in history[METRIC] if not isnan(loss)]
    return int(history.best(METRIC)["epoch"] if finite else history.rows[-1]["epoch"])


def summary(model: Layer, data: Dataset, history: History, metrics: dict[str, Any]) -> None:
    """Print the run in a table."""
    parameters = sum(int(np.prod(parameter.shape)) for _, parameter in model.named_parameters())
    best = history.rows[metrics["best_epoch"] - 1]
    loss, accuracy = f"{metrics['validation_part']} loss {best[METRIC]:.4g}", percent(best["validation_accuracy"])
    told = f"{best['epoch']}, of {loss}, {accuracy}"
    images = len(data.y_train) * metrics["epochs"]
    parts = {f"{metrics['test_part']} loss": metrics["test_loss"]}
    parts[f"{metrics['test_part']} accuracy"] = percent(metrics["test_accuracy"])
    if data.y_valid is not None:
        chosen = {"validation loss": metrics["validation_loss"]}
        parts = {**chosen, "validation accuracy": percent(metrics["validation_accuracy"]), **parts}
    summary_table(
        {
            "model": f"{metrics['model']}, {parameters:,} parameters",
            "backend": f"{metrics['backend']}, {metrics['numerics']} numerics",
            "data": f"{data.name}: {counted(data)}",
            "epochs": metrics["epochs"],
            "training loss": history["train_loss"][-1],
            "training accuracy": percent(history["train_accuracy"][-1]),
            **parts,
            "best epoch": told,
            "weights written": f"of epoch {metrics['weights_of_epoch']}",
            "time": clock(metrics["seconds"]),
            "speed": f"{images / metrics['seconds']:,.0f} images/s, held-out ones apart",
            "peak memory": size(metrics["peak_bytes"]),
        }
    )


def pictures(
    folder: Path, model: Layer, held_out: DataLoader, data: Dataset, history: History, metrics: dict[str, Any]
) -> list[Path]:
    """Draw what there is to see of a run; returns the pictures' paths. Without matplotlib there are none."""
    try:
        from .plots import plot_activations, plot_confusion, plot_curves, plot_filters
    except ImportError:
        print("no pictures: matplotlib is not installed (pip install 'matplotlib>=3.8')", file=sys.stderr)
        return []
    title = f"{metrics['model']} on {data.name}"
    curves, matrix, filters, activations = (folder / name for name in (CURVES, CONFUSION, FILTERS, ACTIVATIONS))
    plot_curves(history, curves, metrics)
    found = np.argmax(predict(model, held_out), axis=1)
    plot_confusion(confusion(data.y_test, found, data.classes), matrix, data.class_names, title=title)
    drawn = [curves, matrix]
    if plot_filters(model, filters):
        drawn.append(filters)
    image = np.asarray(model.backend.to_numpy(next(iter(held_out.batches(model.backend)))[0][:1, ...]))[0]
    plot_activations(model, image, activations, title=title, class_names=data.class_names)
    return [*drawn, activations]
