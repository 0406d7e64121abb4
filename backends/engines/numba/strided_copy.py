"""Copies between arrays of any strides."""

from typing import Any

import numpy as np

from ....common.types import Array
from .bound import Bound
from .jobs import INT, job, read, write

# Axes of a copy, after axes that follow one another in both arrays were joined.
MOST_AXES = 4
# Entries that an item copies.
ENTRIES = 1 << 15


@job(read(1), read(1, "int64"), INT, write(1))
def _copy(item: Any, x: Any, g: Any, rows: Any, out: Any) -> None:
    """Copy some rows of the first axis; ``g`` has the sizes, the strides of ``x`` and those of ``out``."""
    for i in range(item * rows, min((item + 1) * rows, g[0])):
        for j in range(g[1]):
            for k in range(g[2]):
                source = x[i * g[4] + j * g[5] + k * g[6] :]
                target = out[i * g[8] + j * g[9] + k * g[10] :]
                along, to = g[7], g[11]
                if along == 1 and to == 1:
                    for m in range(g[3]):
                        target[m] = source[m]
                else:
                    for m in range(g[3]):
                        target[m * to] = source[m * along]


def copying(out: Array, x: Array, as_flat: Any) -> Bound | None:
    """The call that copies ``x`` to ``out``, of its shape and dtype; None for strides that it can't read.

    ``as_flat(array, n)`` is the vector of ``n`` entries that begins where an array does.
    """
    if x.shape != out.shape or x.dtype != out.dtype or x.dtype.kind not in "fi" or not x.size:
        return None
    axes = sorted((a for a in range(x.ndim) if x.shape[a] > 1), key=lambda a: -out.strides[a])
    size = x.itemsize
    if any(step < 0 or step % size for a in axes for step in (x.strides[a], out.strides[a])):
        return None
    joined: list[tuple[int, int, int]] = []
    for a in axes:
        n, along, to = x.shape[a], x.strides[a] // size, out.strides[a] // size
        if joined and (joined[-1][1], joined[-1][2]) == (n * along, n * to):
            n *= joined.pop()[0]
        joined.append((n, along, to))
    if len(joined) > MOST_AXES:
        return None
    # The first axis is shared; a copy of one axis is one item.
    joined += [(1, 0, 0)] * (0 if joined else 1)
    joined = [(1, 0, 0)] * (MOST_AXES - len(joined)) + joined
    first = next((at for at, (n, _, _) in enumerate(joined[:-1]) if n > 1), 0)
    joined = [joined[first], *joined[:first], *joined[first + 1 :]]
    table = np.array([each[place] for place in range(3) for each in joined], np.int64)
    rows = max(1, ENTRIES * joined[0][0] // x.size)
    reach = [1 + sum((n - 1) * each[place] for n, *each in joined) for place in range(2)]
    return _copy.bind(-(-joined[0][0] // rows), as_flat(x, reach[0]), table, rows, as_flat(out, reach[1]))
