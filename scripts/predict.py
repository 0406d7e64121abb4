"""Apply a trained net, on any backend: accuracy and confusion matrix."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len

from ..backends.terminal import say
from ..layers.base import Layer
from ..training.evaluation import predict
from . import trained
from .errors import Failure, UsageError, preparing
from .trained import confusion, quietly

__all__ = ["configure", "confusion", "format_matrix", "run"]

# Cells of a line for the columns of a matrix.
_WIDEST = 120

configure = trained.configure


def run(options: argparse.Namespace) -> None:
    """Print accuracy and confusion matrix."""
    with preparing():
        net = trained.open_trained(options)
    predicted = np.argmax(scores(net.model, net.loader(), net.class_names), axis=1)
    matrix = confusion(net.labels, predicted, len(net.class_names))
    right, total = int(np.trace(matrix)), len(net.labels)
    say(f"{net.part}: {total} images, {right} right, accuracy {right / total:.4%}")
    print(format_matrix(matrix, net.class_names))


def scores(model: Layer, images: Any, class_names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The model's outputs, one for each class; a `Failure` that is told where they are no numbers."""
    with quietly():
        found = predict(model, images)
    if found.ndim != 2 or found.shape[1] != len(class_names):
        raise UsageError(
            f"the net gives outputs of shape {found.shape}, not one for each of {len(class_names)} classes"
        )
    if (bad := ~np.isfinite(found).all(axis=1)).any():
        print(
            f"xpnn: the net's output is NaN or infinite for {bad.sum()} of {len(found)} images, first for image "
            f"{np.argmax(bad)}",
            file=sys.stderr,
        )
        raise Failure
    return found


def format_matrix(matrix: np.ndarray[Any, Any], names: Sequence[str] | None = None) -> str:
    """The matrix as text, with its classes: names by row, and by column where these fit, otherwise numbers."""
    n, head = len(matrix), "true \\ predicted"
    rows = list(map(str, range(n))) if names is None else list(names)
    columns = rows
    widest = max(len(str(int(matrix.max()))), *map(cell_len, rows))
    if n * (widest + 1) > _WIDEST and rows != list(map(str, range(n))):
        columns = list(map(str, range(n)))
        rows = [f"{name} {number}" for number, name in enumerate(rows)]
        widest = max(len(str(int(matrix.max()))), len(columns[-1]))
    first = max(len(head), *map(cell_len, rows))
    lines = [_right(head, first) + "".join(f" {_right(name, widest)}" for name in columns)]
    for name, row in zip(rows, matrix, strict=True):
        lines.append(_right(name, first) + "".join(f" {count:>{widest}}" for count in row))
    return "\n".join(lines)


def _right(text: str, width: int) -> str:
    """Text set to the right, by the cells that it takes on a terminal."""
    return " " * (width - cell_len(text)) + text
