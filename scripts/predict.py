"""Apply a trained net, on any backend: accuracy and confusion matrix."""

import argparse
from typing import Any

import numpy as np

from ..backends.terminal import say
from ..training.evaluation import predict
from . import trained
from .errors import preparing
from .trained import confusion

__all__ = ["configure", "confusion", "format_matrix", "run"]

configure = trained.configure


def run(options: argparse.Namespace) -> None:
    """Print accuracy and confusion matrix."""
    with preparing():
        net = trained.open_trained(options)
    predicted = np.argmax(predict(net.model, net.loader()), axis=1)
    matrix = confusion(net.labels, predicted, len(net.class_names))
    right, total = int(np.trace(matrix)), len(net.labels)
    say(f"{net.part}: {total} images, {right} right, accuracy {right / total:.4%}")
    print(format_matrix(matrix))


def format_matrix(matrix: np.ndarray[Any, Any]) -> str:
    """The matrix as text, with its classes."""
    width = max(len(str(int(matrix.max()))), len(str(len(matrix) - 1))) + 1
    head = "true \\ predicted"
    lines = [head + "".join(f"{c:>{width}}" for c in range(len(matrix)))]
    lines += [f"{c:>{len(head)}}" + "".join(f"{n:>{width}}" for n in row) for c, row in enumerate(matrix)]
    return "\n".join(lines)
