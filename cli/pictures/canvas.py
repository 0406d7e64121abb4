"""Figures without a window, and the colours, axes and text that all pictures share."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ...common.files import write_whole

# Colours of training and held-out data in all pictures, and colour maps.
TRAINING, HELD_OUT = "#1f77b4", "#e8710a"
SIGNED, POSITIVE = "RdBu_r", "magma"


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A figure of that size in inches; `save` writes it."""
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def picture_format(path: Path) -> str:
    """The format by the suffix of a file's name; PNG without a suffix.

    Raises
    ------
    ValueError
        If matplotlib can't write pictures with that suffix.
    """
    known = FigureCanvasAgg.get_supported_filetypes()
    wanted = path.suffix.lower().removeprefix(".") or "png"
    if wanted not in known:
        raise ValueError(f"{path}: no picture has the suffix {path.suffix}; name it .{', .'.join(sorted(known))}")
    return wanted


def drawable_text(text: str) -> str:
    """Text that matplotlib can draw: bytes of a file name that are not UTF-8 are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a picture, whole or not at all."""
    for text in figure.findobj(Text):
        text.set_text(drawable_text(text.get_text()))
    drawn = BytesIO()
    figure.savefig(drawn, dpi=dpi, format=picture_format(path))
    write_whole(path, drawn.getvalue())


def box(figure: Figure, x: float, y: float, width: float, height: float) -> Any:
    """Axes with their lower left corner at ``(x, y)``, in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((x / wide, y / high, width / wide, height / high))


def write(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Text at ``(x, y)``, in inches."""
    wide, high = figure.get_size_inches()
    figure.text(x / wide, y / high, text, **options)


def bare(axes: Any, colour: str = "#bbbbbb") -> None:
    """Remove the ticks and draw a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=0.6)


def as_picture(image: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """An image ``(C, H, W)`` for `imshow`, with its options: in colours if it has three channels, else in grey."""
    low, high = float(image.min()), float(image.max())
    scaled = (image - low) / (high - low) if high > low else np.zeros_like(image)
    if len(image) == 3:
        return np.moveaxis(scaled, 0, 2), {}
    return scaled.mean(axis=0), {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}


def colours(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Colour map and limits: white at 0 if a value is negative, else from black at 0."""
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    if float(finite.min(initial=0.0)) < 0.0:
        return {"cmap": SIGNED, "vmin": -largest, "vmax": largest}
    return {"cmap": POSITIVE, "vmin": 0.0, "vmax": largest}
