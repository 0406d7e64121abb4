"""Where windows read in a strip, as places in its memory."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..windows import Windows

Places = np.ndarray[Any, np.dtype[np.int64]]


@lru_cache(maxsize=64)
def places(shape: tuple[int, ...], windows: Windows, cells_only: bool = False) -> tuple[Places, Places]:
    """Of ``(n, *S, C)``: where each window begins, ``(n*O,)``, and how far after it each number it reads, ``(K*C,)``.

    With ``cells_only``, how far each cell's first channel is, ``(K,)``.
    """
    apart = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    begin = np.arange(shape[0], dtype=np.int64) * apart[0]
    for count, stride, step in zip(windows.count, windows.stride, apart[1:-1], strict=True):
        begin = (begin[:, None] + np.arange(count, dtype=np.int64) * stride * step).reshape(-1)
    within = np.zeros(1, np.int64)
    for size, dilation, step in zip(windows.kernel, windows.dilation, apart[1:-1], strict=True):
        within = (within[:, None] + np.arange(size, dtype=np.int64) * dilation * step).reshape(-1)
    if cells_only:
        return begin, within
    return begin, (within[:, None] + np.arange(shape[-1], dtype=np.int64)).reshape(-1)
