"""The outputs of a net's layers for one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import to_host
from ...layers.containers.container import Container
from ...layers.core.layer import Layer
from ...layers.core.layer_outputs import layer_outputs
from ...layers.reshaping.flatten import Flatten
from .canvas import HELD_OUT, as_picture, bare, box, colours, new_figure, save, write

HostArray = np.ndarray[Any, Any]
_CHANNELS, _MOST_ROWS, _BARS = 8, 14, 20
# Inches: width of the labels, sides of a map's cell, height of a strip, between rows and between maps.
_LABEL, _CELL, _STRIP, _GAP, _APART = 1.75, 0.92, 0.34, 0.1, 0.06


def plot_activations(
    model: Layer,
    x: HostArray,
    path: Path,
    *,
    title: str = "",
    class_names: Sequence[str] | None = None,
    probabilities: HostArray | None = None,
) -> None:
    """Draw the image, and below it a row for each layer: up to eight channels of its output side by side.

    Colours go from black (0) to yellow if no output is negative, else from blue over white (0) to red; each row has its
    own scale. Outputs without spatial axes are strips with a cell for each number. Of deep nets the blocks are shown
    instead of the layers, and never more than 14 rows.

    Parameters
    ----------
    model : Layer
        On any backend.
    x : array ``(C, H, W)`` or ``(1, C, H, W)``
        Host image, scaled as the model expects it.
    path : path
    title : str
    class_names : sequence of str, optional
        For the probabilities.
    probabilities : array ``(classes,)``, optional
        Drawn as bars at the bottom.
    """
    b = model.backend
    sample = np.asarray(x).reshape(-1, *np.shape(x)[-3:])[:1]
    rows = _chosen(model, b.asarray(sample, b.dtype))
    heights = [_CELL] + [_CELL if array.ndim == 3 else _STRIP for _, array in rows]
    heights += [] if probabilities is None else [1.0]
    top, bottom = 0.5 if title else 0.15, 0.1 if probabilities is None else 0.35
    width = _LABEL + _CHANNELS * _CELL + 0.15
    y = height = top + sum(heights) + _GAP * (len(heights) - 1) + bottom
    figure = new_figure(width, height)
    write(figure, width / 2, height - 0.25, title, ha="center", va="center", fontsize=12, fontweight="bold")

    y -= top + _CELL
    _input(figure, sample[0], y)
    for name, array in rows:
        spatial = array.ndim == 3
        y -= _GAP + (_CELL if spatial else _STRIP)
        (_maps if spatial else _strip)(figure, name, array, y)
    if probabilities is not None:
        _bars(figure, np.asarray(probabilities), class_names, y - _GAP - heights[-1])
    save(figure, path)


def _chosen(model: Layer, x: Any) -> list[tuple[str, HostArray]]:
    """Labels and outputs to draw: of all layers if they are few, else of the model's direct children."""
    outputs = layer_outputs(model, x)
    leaves = [item for item in outputs if not isinstance(item[1], Container)]
    if len(leaves) > _MOST_ROWS:
        leaves = [item for item in outputs if item[0] and "." not in item[0]] or leaves
    drawn: list[tuple[str, HostArray]] = []
    for name, layer, output in leaves:
        array = np.asarray(to_host(output), np.float64)[0]
        if array.ndim == 3 and array.shape[1:] == (1, 1):
            array = array[:, 0, 0]
        # A flattened array shows the same numbers as the row before it.
        known = drawn and isinstance(layer, Flatten) and array.size == drawn[-1][1].size
        if array.ndim in (1, 3) and not known:
            drawn.append((f"{name}  {type(layer).__name__}".strip(), array))
    if len(drawn) > _MOST_ROWS:
        drawn = [drawn[round(i)] for i in np.linspace(0, len(drawn) - 1, _MOST_ROWS)]
    return drawn


def _input(figure: Any, image: HostArray, y: float) -> None:
    _label(figure, y + _CELL / 2, "input", _shape(image))
    axes = box(figure, _LABEL, y, _CELL - _APART, _CELL - _APART)
    picture, options = as_picture(image)
    axes.imshow(picture, interpolation="nearest", **options)
    bare(axes)
    legend = (
        f"below: a row for each layer, its first {_CHANNELS} channels, on one scale\n"
        "black 0, yellow the largest; with negative values blue below 0 and red above"
    )
    write(
        figure, _LABEL + _CELL + 0.1, y + _CELL / 2, legend, va="center", fontsize=8, color="#666666", linespacing=1.5
    )


def _maps(figure: Any, name: str, array: HostArray, y: float) -> None:
    _label(figure, y + _CELL / 2, name, f"{_shape(array)}\n{array.min():.2g} to {array.max():.2g}")
    scale = colours(array[:_CHANNELS])
    for channel, image in enumerate(array[:_CHANNELS]):
        axes = box(figure, _LABEL + channel * _CELL, y, _CELL - _APART, _CELL - _APART)
        axes.imshow(image, interpolation="nearest", **scale)
        bare(axes)


def _strip(figure: Any, name: str, array: HostArray, y: float) -> None:
    _label(figure, y + _STRIP / 2, name, _shape(array))
    axes = box(figure, _LABEL, y, _CHANNELS * _CELL - _APART, _STRIP)
    axes.imshow(array[None], interpolation="nearest", aspect="auto", **colours(array))
    bare(axes)


def _bars(figure: Any, probabilities: HostArray, class_names: Sequence[str] | None, y: float) -> None:
    """A bar for each class; of more than 20 classes for the most likely."""
    _label(figure, y + 0.5, "probability", "softmax of the output")
    axes = box(figure, _LABEL, y, _CHANNELS * _CELL - _APART, 1.0)
    shown = np.sort(np.argsort(-probabilities, kind="stable")[:_BARS])
    names = [class_names[i] if class_names else str(i) for i in shown]
    likely = int(np.argmax(probabilities))
    axes.bar(range(len(shown)), probabilities[shown], color=[HELD_OUT if i == likely else "#9db7d5" for i in shown])
    for place, i in enumerate(shown):
        if probabilities[i] >= 0.005:
            axes.text(place, probabilities[i] + 0.03, f"{100 * probabilities[i]:.0f} %", ha="center", fontsize=7)
    long = max(map(len, names)) * len(names) > 90
    axes.set_xticks(range(len(shown)), names, fontsize=6 if long else 8)
    axes.set(ylim=(0, 1.2), yticks=[], xlim=(-0.5, len(shown) - 0.5))
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(figure: Any, y: float, name: str, below: str) -> None:
    lines = 1 + below.count("\n")
    right: dict[str, Any] = {"ha": "right", "va": "center"}
    write(figure, _LABEL - 0.12, y + 0.08 * lines, name, fontsize=9, fontweight="bold", **right)
    write(figure, _LABEL - 0.12, y - 0.08, below, fontsize=8, color="#666666", linespacing=1.3, **right)


def _shape(array: HostArray) -> str:
    return " x ".join(map(str, array.shape))
