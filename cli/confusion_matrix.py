"""The confusion matrix: true class by row, predicted class by column."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.terminal import cells

HostArray = np.ndarray[Any, Any]
# Columns of text for a matrix that goes to a file.
_FILE_WIDTH = 120


def confusion(y: HostArray, predicted: HostArray, classes: int) -> HostArray:
    """Counts ``(classes, classes)`` of the pairs of true and predicted class."""
    counts: HostArray = np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def format_matrix(matrix: HostArray, names: Sequence[str] | None = None, width: int | None = None) -> str:
    """The matrix as text: rows begin with the names of classes, columns too if they fit, else with their numbers.

    With a ``width`` no line is longer: columns that don't fit follow in a second table below, long names are shortened.
    """
    n, head = len(matrix), "true \\ predicted"
    rows = list(map(str, range(n))) if names is None else list(names)
    heads, figure = rows, len(str(int(matrix.max())))
    widest = max(figure, *map(cells, rows))
    available = _FILE_WIDTH if width is None else width - max(len(head), *map(cells, rows))
    if n * (widest + 1) > available and rows != list(map(str, range(n))):
        heads = list(map(str, range(n)))
        rows = [f"{_shortened(name, width)} {number}" for number, name in enumerate(rows)]
        widest = max(figure, len(heads[-1]))
    first = max(len(head), *map(cells, rows))
    shown = n if width is None else max(1, (width - first) // (widest + 1))
    blocks = []
    for start in range(0, n, shown):
        part = slice(start, start + shown)
        lines = [_right_aligned(head, first) + "".join(f" {_right_aligned(name, widest)}" for name in heads[part])]
        for name, row in zip(rows, matrix, strict=True):
            lines.append(_right_aligned(name, first) + "".join(f" {count:>{widest}}" for count in row[part]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _shortened(name: str, width: int | None) -> str:
    """A name, cut to half a line of ``width`` columns."""
    if width is None or cells(name) <= width // 2:
        return name
    start = name
    while start and cells(start) + 3 > width // 2:
        start = start[:-1]
    return f"{start}..."


def _right_aligned(text: str, width: int) -> str:
    """Text with blanks before it, up to ``width`` columns of a terminal."""
    return " " * (width - cells(text)) + text
