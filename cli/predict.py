"""Apply a trained net, on any backend: accuracy and confusion matrix."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.terminal import cells, columns, say
from ..layers.core.layer import Layer
from ..training.evaluation import predict
from ..training.out_of_memory import OutOfMemory
from . import trained
from .errors import Failure, UsageError, at_least, preparing
from .trained import confusion, quietly

__all__ = ["configure", "confusion", "format_matrix", "run"]

# Cells of a line for the columns of a matrix.
_WIDEST = 120


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn predict`` takes."""
    trained.configure(parser)
    parser.add_argument("--batch", default=256, type=at_least(1), metavar="N", help="images in a batch")


def run(options: argparse.Namespace) -> None:
    """Print accuracy and confusion matrix."""
    with preparing():
        net = trained.open_trained(options)
    try:
        predicted = np.argmax(scores(net.model, net.loader(options.batch), net.class_names), axis=1)
    except OutOfMemory as error:
        if not error.fits:
            raise
        what = f"batch of {error.batch} does not fit in the memory of {error.where}"
        print(f"xpnn predict: {what}; a batch of {error.fits} does: add --batch {error.fits}", file=sys.stderr)
        raise Failure from error
    matrix = confusion(net.labels, predicted, len(net.class_names))
    right, total = int(np.trace(matrix)), len(net.labels)
    say(f"{net.part}: {total} images, {right} right, accuracy {right / total:.4%}")
    print(format_matrix(matrix, net.class_names, columns()))


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


def format_matrix(matrix: np.ndarray[Any, Any], names: Sequence[str] | None = None, width: int | None = None) -> str:
    """The matrix as text, with its classes: names by row, and by column where these fit, otherwise numbers.

    In lines of at most ``width`` cells, where one is given: columns that don't fit follow below, long names are cut.
    """
    n, head = len(matrix), "true \\ predicted"
    rows = list(map(str, range(n))) if names is None else list(names)
    heads, figure = rows, len(str(int(matrix.max())))
    widest = max(figure, *map(cells, rows))
    room = _WIDEST if width is None else width - max(len(head), *map(cells, rows))
    if n * (widest + 1) > room and rows != list(map(str, range(n))):
        heads = list(map(str, range(n)))
        rows = [f"{_cut(name, width)} {number}" for number, name in enumerate(rows)]
        widest = max(figure, len(heads[-1]))
    first = max(len(head), *map(cells, rows))
    shown = n if width is None else max(1, (width - first) // (widest + 1))
    blocks = []
    for start in range(0, n, shown):
        part = slice(start, start + shown)
        lines = [_right(head, first) + "".join(f" {_right(name, widest)}" for name in heads[part])]
        for name, row in zip(rows, matrix, strict=True):
            lines.append(_right(name, first) + "".join(f" {count:>{widest}}" for count in row[part]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cut(name: str, width: int | None) -> str:
    """A name that takes half of a line at most."""
    if width is None or cells(name) <= width // 2:
        return name
    kept = name
    while kept and cells(kept) + 3 > width // 2:
        kept = kept[:-1]
    return f"{kept}..."


def _right(text: str, width: int) -> str:
    """Text set to the right, by the cells that it takes on a terminal."""
    return " " * (width - cells(text)) + text
