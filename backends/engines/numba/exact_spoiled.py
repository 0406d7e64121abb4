"""NaN in the outputs of windows with a number that is not finite, of which products of slices know nothing: it is 0."""

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
    kernel_height: Any,
    kernel_width: Any,
    row_stride: Any,
    column_stride: Any,
    row_dilation: Any,
    column_dilation: Any,
    above: Any,
    left: Any,
) -> None:
    """Write NaN to the outputs of the sample ``item`` whose windows have one, if it is marked in ``bad (N,)``."""
    if not bad[item]:
        return
    height, width, channels = x.shape[1:]
    rows, columns, features = y.shape[1:]
    each, some = channels // groups, features // groups
    for row in range(rows):
        for column in range(columns):
            for g in range(groups):
                found = False
                for i in range(kernel_height):
                    for j in range(kernel_width):
                        h, w = (
                            row * row_stride + i * row_dilation - above,
                            column * column_stride + j * column_dilation - left,
                        )
                        if 0 <= h < height and 0 <= w < width:
                            for c in range(g * each, (g + 1) * each):
                                found = found or not np.isfinite(x[item, h, w, c])
                if found:
                    for f in range(g * some, (g + 1) * some):
                        y[item, row, column, f] = np.nan


def spoiled(x: Array, bad: Array, y: Array, windows: Windows, padding: PadWidths, groups: int) -> Bound:
    """The call that writes NaN to ``y (N, O, P, F)`` where windows have a NaN or an infinity in a group.

    The windows are those of ``x (N, H, W, C)``. Only samples that are marked in ``bad (N,)`` are read.
    """
    (above, _), (left, _) = padding
    return _spoil.bind(len(x), x, bad, y, groups, *windows.kernel, *windows.stride, *windows.dilation, above, left)
