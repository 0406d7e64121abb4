"""NaN in the results of windows that have a number that is not finite, whose slices are 0."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from .bound import Bound
from .jobs import INT, job, read, write


@job(read(4), read(1, "int64"), write(4), *[INT] * 9)
def _spoil(
    item: Any,
    x: Any,
    bad: Any,
    y: Any,
    groups: Any,
    high: Any,
    wide: Any,
    step: Any,
    side_step: Any,
    apart: Any,
    side_apart: Any,
    above: Any,
    left: Any,
) -> None:
    """Of the sample ``item``, if it is marked in ``bad (N,)``."""
    if not bad[item]:
        return
    height, width, channels = x.shape[1:]
    rows, columns, features = y.shape[1:]
    each, some = channels // groups, features // groups
    for row in range(rows):
        for column in range(columns):
            for g in range(groups):
                found = False
                for i in range(high):
                    for j in range(wide):
                        h, w = row * step + i * apart - above, column * side_step + j * side_apart - left
                        if 0 <= h < height and 0 <= w < width:
                            for c in range(g * each, (g + 1) * each):
                                found = found or not np.isfinite(x[item, h, w, c])
                if found:
                    for f in range(g * some, (g + 1) * some):
                        y[item, row, column, f] = np.nan


def spoiled(x: Array, bad: Array, y: Array, windows: Windows, padding: PadWidths, groups: int) -> Bound:
    """NaN to ``y (N, O, P, F)`` where windows of ``x (N, H, W, C)`` have a NaN or an infinity in a group.

    Only samples that are marked in ``bad (N,)`` are read.
    """
    (above, _), (left, _) = padding
    return _spoil.bind(len(x), x, bad, y, groups, *windows.kernel, *windows.stride, *windows.dilation, above, left)
