"""The kernels of a net's first convolution."""

from pathlib import Path
from typing import Any

import numpy as np

from ...backends import to_host
from ...layers.convolution.conv import Conv2d
from ...layers.core.layer import Layer
from .canvas import SIGNED, bare, box, new_figure, save, write

_MOST_KERNELS, _MOST_ROWS, _MOST_CHANNELS = 64, 16, 8
# Inches: distance between tiles, and height of the title above a tile.
_PITCH, _TITLE = 0.85, 0.12


def plot_filters(model: Layer, path: Path) -> bool:
    """Draw the kernels of the first 2-d convolution; returns False and writes no file if the model has none.

    Kernels of three input channels are drawn in colours: grey is 0, and each kernel has its own scale. Others are blue
    for negative and red for positive weights, on one scale for all; of several input channels the first eight are
    drawn side by side, with a row for each kernel.
    """
    found = next(((name, layer) for name, layer in model.named_layers() if isinstance(layer, Conv2d)), None)
    if found is None:
        return False
    name, layer = found
    weight = np.asarray(to_host(layer.parameters["weight"].value), np.float64)
    count, channels, height, width = weight.shape
    if channels == 3:
        tiles = [np.moveaxis(_coloured(kernel), 0, 2) for kernel in weight[:_MOST_KERNELS]]
    elif channels == 1:
        tiles = list(weight[:_MOST_KERNELS, 0])
    else:
        tiles = list(weight[:_MOST_ROWS, :_MOST_CHANNELS].reshape(-1, height, width))
    single = channels in (1, 3)
    columns = _columns(len(tiles)) if single else min(channels, _MOST_CHANNELS)
    rows = -(-len(tiles) // columns)
    limit = float(np.abs(tiles).max(initial=0.0)) or 1.0
    scale: dict[str, Any] = {} if channels == 3 else {"cmap": SIGNED, "vmin": -limit, "vmax": limit}

    left = 0.25 if single else 0.6
    wide, high = max(left + columns * _PITCH + (0.2 if channels == 3 else 1.0), 4.0), 0.5 + rows * (_PITCH + _TITLE)
    figure = new_figure(wide, max(high, 1.8))
    high = figure.get_figheight()
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        y = high - 0.35 - (row + 1) * (_PITCH + _TITLE)
        axes = box(figure, left + column * _PITCH, y, _PITCH - 0.1, _PITCH - 0.1)
        image = axes.imshow(tile, interpolation="nearest", **scale)
        bare(axes)
        axes.set_title(str(i) if single else f"channel {column}" if not row else "", fontsize=7, pad=2, color="#555555")
        if not single and not column:
            axes.set_ylabel(f"kernel {row}", fontsize=7, color="#555555")
    if channels != 3:
        bar = min(2.5, high - 0.6)
        scale_axes = box(figure, left + columns * _PITCH + 0.15, high - 0.35 - _TITLE - bar, 0.12, bar)
        figure.colorbar(image, cax=scale_axes).ax.tick_params(labelsize=7)
    some = "" if len(tiles) == count * (1 if single else channels) else ", some of them"
    place = f"layer {name}" if name else "the convolution"
    grey = "; grey is 0" if channels == 3 else ""
    what = f"{place}: {count} kernels, {channels} x {height} x {width}{some}{grey}"
    write(figure, wide / 2, high - 0.2, what, ha="center", va="center", fontsize=10, fontweight="bold")
    save(figure, path)
    return True


def _coloured(kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights as intensities: 0 is grey, the kernel's largest magnitude black or full colour."""
    return 0.5 + 0.5 * kernel / (float(np.abs(kernel).max()) or 1.0)


def _columns(n: int) -> int:
    """The number of columns for ``n`` tiles: one with full rows if there is such a number, else up to 8."""
    return next((c for c in (8, 6, 5, 4) if n % c == 0 and n // c <= c), min(n, 8))
