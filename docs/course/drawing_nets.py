"""What the pages about whole nets share: arrays of the backend, differences in float64, and curves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from drawing import SERIES
from matplotlib.axes import Axes

import xpnn as nn
from xpnn.backends import to_host

#: Beside the colours, so that curves differ in grey too.
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))


def array(numbers: Any) -> Any:
    """Numbers as a float32 array of the backend of the page."""
    return nn.get_backend().asarray(np.asarray(numbers, "float32"))


def central_difference(function: Callable[[Any], Any], x: Any, step: float = 1e-2) -> np.ndarray[Any, Any]:
    """``(f(x + h) - f(x - h)) / 2h`` for each entry of ``x``, where ``f`` is a number; ``x`` is float32."""
    host = to_host(x).astype("float64")
    slopes = np.empty_like(host)
    for place in np.ndindex(host.shape):
        sides = []
        for sign in (1, -1):
            moved = host.copy()
            moved[place] += sign * step
            sides.append(float(function(array(moved))))
        slopes[place] = (sides[0] - sides[1]) / (2 * step)
    return slopes


def curves(axes: Axes, x: Any, named: dict[str, Any], title: str = "", **labels: Any) -> None:
    """Draw a curve for each name, each in a colour and a stroke of its own."""
    for i, (name, y) in enumerate(named.items()):
        style, colour = STYLES[i % len(STYLES)], SERIES[i % len(SERIES)]
        axes.plot(to_host(x), to_host(y), linestyle=style, color=colour, label=name, linewidth=2)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set(title=title, **labels)
    if len(named) > 1:
        axes.legend(handlelength=2.8)
