"""The figures of a run: ``metrics.json``, and the table that is printed at the end."""

import argparse
from math import isnan
from typing import Any

import numpy as np

from ...layers.core.layer import Layer
from ...training.datasets import Dataset
from ...training.formatting import clock, percent, size, summary_table
from ...training.history import History

# The best epoch, and with it the best checkpoint, has the lowest of these.
METRIC = "validation_loss"


def part_names(data: Dataset) -> tuple[str, str]:
    """Names of the part that is evaluated after each epoch, and of the part that is evaluated at the end."""
    return ("held-out", "held-out") if data.x_valid is None else ("validation", "test")


def run_metrics(
    options: argparse.Namespace,
    data: Dataset,
    model: Layer,
    history: History,
    on_test: dict[str, float],
    on_validation: dict[str, float],
) -> dict[str, Any]:
    """Figures of a run, for ``metrics.json``: of the test part, and of the validation part.

    Without a validation part both are the held-out part, and ``validation_part`` and ``test_part`` say so.
    """
    b = model.backend
    validation_part, test_part = part_names(data)
    return {
        "validation_part": validation_part,
        "validation_accuracy": on_validation["accuracy"],
        "validation_loss": on_validation["loss"],
        "test_part": test_part,
        "test_accuracy": on_test["accuracy"],
        "test_loss": on_test["loss"],
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


def image_counts(data: Dataset) -> str:
    """The number of images in each part, in words."""
    train = f"{len(data.y_train):,} images for training"
    if data.y_valid is None:
        return f"{train}, {len(data.y_test):,} held out"
    return f"{train}, {len(data.y_valid):,} for validation, {len(data.y_test):,} for testing"


def best_epoch(history: History) -> int:
    """The first epoch with the lowest validation loss; the last epoch if all losses are NaN."""
    finite = [loss for loss in history[METRIC] if not isnan(loss)]
    return int(history.best(METRIC)["epoch"] if finite else history.rows[-1]["epoch"])


def print_summary(model: Layer, data: Dataset, history: History, metrics: dict[str, Any]) -> None:
    """Print the figures of the run as a table."""
    parameters = sum(int(np.prod(parameter.shape)) for _, parameter in model.named_parameters())
    best = history.rows[metrics["best_epoch"] - 1]
    loss, accuracy = f"{metrics['validation_part']} loss {best[METRIC]:.4g}", percent(best["validation_accuracy"])
    best_text = f"{best['epoch']}, of {loss}, {accuracy}"
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
            "data": f"{data.name}: {image_counts(data)}",
            "epochs": metrics["epochs"],
            "training loss": history["train_loss"][-1],
            "training accuracy": percent(history["train_accuracy"][-1]),
            **parts,
            "best epoch": best_text,
            "weights written": f"of epoch {metrics['weights_of_epoch']}",
            "time": clock(metrics["seconds"]),
            "speed": f"{images / metrics['seconds']:,.0f} images/s, held-out ones not counted",
            "peak memory": size(metrics["peak_bytes"]),
        }
    )
