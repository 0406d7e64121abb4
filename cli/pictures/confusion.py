"""A confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from ...training.formatting import percent
from .canvas import new_figure, save

# With more classes the numbers do not fit into the cells.
_MOST_WRITTEN = 20
_LISTED = 15


def plot_confusion(
    matrix: np.ndarray[Any, Any],
    path: Path,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw a confusion matrix: true class by row, predicted class by column, coloured by the share of the row.

    With up to 20 classes each cell shows its count and share; with more the most frequent mistakes are listed.

    Parameters
    ----------
    matrix : array of int ``(classes, classes)``
    path : path
    class_names : sequence of str, optional
        Numbers from 0 unless given.
    title : str
        Accuracy and number of images unless given.

    Raises
    ------
    ValueError
        If the matrix is not square, or the number of names is not its number of classes.
    """
    matrix = np.asarray(matrix)
    n = len(matrix)
    if matrix.shape != (n, n) or not n:
        raise ValueError(f"a confusion matrix must be square, got shape {matrix.shape}")
    names = [str(c) for c in range(n)] if class_names is None else [str(name) for name in class_names]
    if len(names) != n:
        raise ValueError(f"the matrix has {n} classes, got {len(names)} names")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    written = n <= _MOST_WRITTEN
    side = max(4.2, 0.62 * n + 1.8) if written else 8.0
    figure = new_figure(side + (1.0 if written else 4.2), side, layout="constrained")
    parts: Any = [figure] if written else figure.subfigures(1, 2, width_ratios=(side + 1.2, 3.0))
    axes = parts[0].add_subplot()
    # The root of the share, so that one mistake in a hundred is visible.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    _label(axes, names)
    bar = parts[0].colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=(0, 0.01, 0.05, 0.2, 0.5, 1))
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    bar.set_label("share of the true class")
    if written:
        _write(axes, matrix, shares)
    else:
        _list(parts[1].add_subplot(), matrix, shares, names)
    total, right = int(matrix.sum()), int(np.trace(matrix))
    figure.suptitle(title or f"{right:,} of {total:,} right: {percent(right / max(total, 1))}", fontsize=12)
    save(figure, path)


def _label(axes: Any, names: Sequence[str]) -> None:
    n = len(names)
    plain = all(name.isdigit() for name in names)
    shown = range(0, n, 1 if n <= 40 or not plain else 10)
    size = 9 if n <= 30 else 6 if n <= 60 or plain else 4.5
    axes.set_xticks(shown, [names[i] for i in shown], fontsize=size, rotation=0 if plain else 90)
    axes.set_yticks(shown, [names[i] for i in shown], fontsize=size)
    if n <= 40:
        axes.set_xticks(np.arange(n - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(n - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)


def _write(axes: Any, matrix: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if not count:
            continue
        colour = "white" if shares[row, column] > 0.35 else "#14305c"
        text = {"color": colour, "ha": "center"}
        axes.text(column, row - 0.04, f"{count:,}", va="bottom", fontsize=10, fontweight="bold", **text)
        axes.text(column, row + 0.08, _short(float(shares[row, column])), va="top", fontsize=7, **text)


def _list(axes: Any, matrix: np.ndarray[Any, Any], shares: np.ndarray[Any, Any], names: Sequence[str]) -> None:
    """The largest counts off the diagonal, and the classes with the fewest right predictions."""
    axes.axis("off")
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    worst = [i for i in np.argsort(-wrong, axis=None, kind="stable")[:_LISTED] if wrong.flat[i]]
    pairs = [(names[i // len(matrix)], names[i % len(matrix)], i) for i in worst]
    mistakes = [f"{a} as {b}: {wrong.flat[i]:,} ({_short(float(shares.flat[i]))})" for a, b, i in pairs]
    found, total = np.diag(shares), matrix.sum(axis=1)
    hard = [i for i in np.argsort(found, kind="stable")[:_LISTED] if total[i] and found[i] < 1.0]
    classes = [f"{names[i]}: {_short(float(found[i]))} of {total[i]:,}" for i in hard]
    for top, head, lines in ((1.0, "most frequent mistakes", mistakes), (0.48, "hardest classes", classes)):
        axes.text(0, top, head, fontsize=10, fontweight="bold", va="top", transform=axes.transAxes)
        text = "\n".join(lines) or "none"
        axes.text(0, top - 0.04, text, fontsize=9, va="top", linespacing=1.5, transform=axes.transAxes)


def _short(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.995 or share >= 0.1 else f"{100 * share:.1f} %"
