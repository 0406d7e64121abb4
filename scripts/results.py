"""What a run leaves: figures, pictures, and what its weights' file says of the net."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..layers.base import Layer
from ..training.augment import AnyTransform, Compose, Normalise
from ..training.data import DataLoader
from ..training.datasets import Dataset
from ..training.evaluation import predict
from ..training.figures import clock, percent, size, summary_table
from ..training.history import History
from .folder import ACTIVATIONS, CONFUSION, CURVES, FILTERS
from .trained import confusion


def metrics(
    options: argparse.Namespace, data: Dataset, model: Layer, history: History, measured: dict[str, float]
) -> dict[str, Any]:
    """Figures of a run, for ``metrics.json``."""
    b = model.backend
    return {
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
        "best_epoch": history.best("validation_accuracy")["epoch"],
        "peak_bytes": b.memory()["peak"],
    }


def describe(model: str, data: Dataset, transform: AnyTransform | None = None) -> dict[str, Any]:
    """What `xpnn predict` needs to build the net again and to prepare images for it."""
    steps = transform.transforms if isinstance(transform, Compose) else ()
    normalise = next((step for step in steps if isinstance(step, Normalise)), None)
    return {
        "model": model,
        "image": list(data.image),
        "classes": data.classes,
        "class_names": list(data.class_names),
        "scale": data.scale,
        "normalise": None if normalise is None else {"mean": list(normalise.mean), "std": list(normalise.std)},
        "data": data.name,
        "fingerprint": data.fingerprint,
    }


def summary(model: Layer, data: Dataset, history: History, metrics: dict[str, Any]) -> None:
    """Print the run in a table."""
    parameters = sum(int(np.prod(parameter.shape)) for _, parameter in model.named_parameters())
    best = history.best("validation_accuracy")
    images = len(data.y_train) * metrics["epochs"]
    summary_table(
        {
            "model": f"{metrics['model']}, {parameters:,} parameters",
            "backend": f"{metrics['backend']}, {metrics['numerics']} numerics",
            "data": f"{data.name}: {len(data.y_train):,} images for training, {len(data.y_test):,} held out",
            "epochs": metrics["epochs"],
            "training loss": history["train_loss"][-1],
            "training accuracy": percent(history["train_accuracy"][-1]),
            "held-out loss": metrics["test_loss"],
            "held-out accuracy": percent(metrics["test_accuracy"]),
            "best epoch": f"{best['epoch']}, {percent(best['validation_accuracy'])}",
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
