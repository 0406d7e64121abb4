"""The pictures in the folder of a run."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from ...layers.core.layer import Layer
from ...training.data_loader import DataLoader
from ...training.datasets import Dataset
from ...training.evaluation import predict
from ...training.history import History
from ..confusion_matrix import confusion
from ..run_folder import ACTIVATIONS, CONFUSION, CURVES, FILTERS


def draw_pictures(
    folder: Path, model: Layer, held_out: DataLoader, data: Dataset, history: History, metrics: dict[str, Any]
) -> list[Path]:
    """Draw curves, confusion matrix, filters and activations; returns the paths. Without matplotlib there are none."""
    try:
        from ..pictures import plot_activations, plot_confusion, plot_curves, plot_filters
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
