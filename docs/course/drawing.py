"""Drawing for the pages of the course: matrices with their numbers, windows outlined in colour, and images.

A *board* is a figure whose unit of length is one cell of a matrix, so that all matrices on it have cells of one size.
*Panels* are a grid of axes for images and curves. Both hold the alternative text of the picture as an invisible title
of the figure, where sphinx-gallery looks for it. Arrays may be of any backend; they are copied to the host.

Colours are those of M. Okabe and K. Ito, "Color universal design", 2008, which people with any form of colour vision
can tell apart.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from xpnn.backends import to_host

BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, RED, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
#: For the first, second, ... of several things: neighbours differ in lightness too.
SERIES = (ORANGE, BLUE, GREEN, PURPLE, SKY, RED, YELLOW, GREY, "#6F4E9C")

FONT = 10
CELL = 0.34  # inches


def board(alt: str, width: float, height: float, cell: float = CELL) -> Axes:
    """Empty axes of ``width x height`` cells, with the origin at the upper left, in a figure of its own."""
    figure = plt.figure(figsize=(width * cell, height * cell))
    _describe(figure, alt)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def panels(alt: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.2), **kwargs: Any) -> Any:
    """``rows x columns`` axes as an array, in a figure of ``size`` inches; ``kwargs`` are those of `plt.subplots`."""
    plt.rcParams.update({"font.size": FONT, "axes.titlesize": FONT, "legend.fontsize": FONT, "axes.labelsize": FONT})
    plt.rcParams.update({"xtick.labelsize": 9, "ytick.labelsize": 9})
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)
    _describe(figure, alt)
    return axes


def _describe(figure: Figure, alt: str) -> None:
    text = figure.suptitle(alt.rstrip("."))  # sphinx-gallery adds the titles of axes, after commas
    text.set_visible(False)
    text.set_in_layout(False)


def matrix(
    axes: Axes,
    values: Any,
    x: float,
    y: float,
    title: str = "",
    fill: Sequence[Any] | str = "white",
    digits: int = 0,
    edge: str = "#666666",
) -> None:
    """Draw a matrix on a board, its upper left corner at ``(x, y)``, with the title above it.

    Parameters
    ----------
    fill : str or nested sequence of str
        The colour of the cells, or one for each.
    digits : int
        After the point; NaN leaves a cell without number.
    """
    values = np.atleast_2d(to_host(values)).round(digits) + 0.0  # no minus before a zero
    rows, columns = values.shape
    fills = np.broadcast_to(np.asarray(fill), values.shape)
    for i in range(rows):
        for j in range(columns):
            axes.add_patch(Rectangle((x + j, y + i), 1, 1, facecolor=fills[i, j], edgecolor=edge, linewidth=0.8))
            if not np.isnan(values[i, j]):
                text = f"{values[i, j]:.{digits}f}".replace("-", "\N{MINUS SIGN}")
                colour = "white" if _is_dark(fills[i, j]) else "black"
                axes.text(x + j + 0.5, y + i + 0.52, text, ha="center", va="center", fontsize=FONT, color=colour)
    if title:
        label(axes, title, x + columns / 2, y - 0.45)


def _is_dark(colour: str) -> bool:
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) < 0.5


def outline(axes: Axes, x: float, y: float, width: float, height: float, colour: str = RED) -> None:
    """Draw a frame around cells of a board (or pixels of an image, where cell 0 begins at -0.5)."""
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=2.5, zorder=3))


def label(axes: Axes, text: str, x: float, y: float, **kwargs: Any) -> None:
    """Write on a board, centred at ``(x, y)``."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": FONT, **kwargs})


def sign(axes: Axes, text: str, x: float, y: float) -> None:
    """Write an operator between two matrices of a board."""
    label(axes, text, x, y, fontsize=16)


def light(colour: str, share: float = 0.4) -> str:
    """The colour mixed with white, as a background for black numbers."""
    red, green, blue = (round(255 * (1 - share + share * part)) for part in to_rgb(colour))
    return f"#{red:02x}{green:02x}{blue:02x}"


def shades(values: Any, colour: str = BLUE, strongest: float = 0.6) -> list[list[str]]:
    """A background for each entry of a matrix: white for 0, darker for a larger absolute value."""
    values = np.abs(np.atleast_2d(to_host(values)))
    largest = max(float(values.max()), 1e-30)
    return [[light(colour, strongest * float(value) / largest) for value in row] for row in values]


def image(axes: Axes, pixels: Any, title: str = "", limits: tuple[float, float] | None = None) -> None:
    """Show ``(H, W)`` in grey, or ``(3, H, W)`` in colour, without axes; ``limits`` are black and white."""
    pixels = to_host(pixels)
    if pixels.ndim == 3:
        axes.imshow(np.clip(np.moveaxis(pixels, 0, -1), 0, 1))
    else:
        low, high = (None, None) if limits is None else limits
        axes.imshow(pixels, cmap="gray", vmin=low, vmax=high)
    _without_axes(axes, title)


def signed(axes: Axes, values: Any, title: str = "", largest: float | None = None) -> None:
    """Show ``(H, W)`` from blue for negative over white for 0 to red for positive values."""
    values = to_host(values)
    largest = float(np.max(np.abs(values))) if largest is None else largest
    axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest)
    _without_axes(axes, title)


def heat(axes: Axes, counts: Any, title: str = "") -> None:
    """Show ``(H, W)`` of whole numbers as a heat map, each cell with its number."""
    counts = to_host(counts)
    axes.imshow(counts, cmap="cividis", vmin=0)
    bright = counts > counts.max() / 2
    for (i, j), count in np.ndenumerate(counts):
        colour = "black" if bright[i, j] else "white"
        axes.text(j, i, f"{count:.0f}", ha="center", va="center", fontsize=9, color=colour)
    _without_axes(axes, title)


def pattern(axes: Axes, numbers: Any, title: str = "") -> None:
    """Show a matrix of whole numbers from 0 to 9: 0 is white, and each other number has its colour of `SERIES`."""
    axes.imshow(to_host(numbers), cmap=ListedColormap(["white", *SERIES]), vmin=-0.5, vmax=len(SERIES) + 0.5)
    _without_axes(axes, title)


def _without_axes(axes: Axes, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    if title:
        axes.set_title(title)


def volume(
    axes: Axes, x: float, y: float, shape: tuple[int, int, int], scale: float, colour: str, text: str = ""
) -> float:
    """Draw ``(C, H, W)`` as a box whose depth goes up to the right, and return where it ends on the right."""
    channels, height, width = (float(size) * scale for size in shape)
    depth = 0.6 * max(channels, 0.12)
    front = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    top = [(x, y), (x + depth, y - depth), (x + width + depth, y - depth), (x + width, y)]
    side = [(x + width, y), (x + width + depth, y - depth), (x + width + depth, y + height - depth)]
    side += [(x + width, y + height)]
    for corners, share in ((front, 0.35), (top, 0.2), (side, 0.55)):
        axes.add_patch(Polygon(corners, facecolor=light(colour, share), edgecolor="#444444", linewidth=0.8))
    if text:
        label(axes, text, x + width / 2, y + height + 0.2, va="top")
    return x + width + depth
