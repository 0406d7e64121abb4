"""Sums that lanes have computed side by side, added up in order."""

from typing import Any

from .jobs import INT, job, read, write
from .memory import add_run, copy_run


@job(read(3), INT, write(2))
def add_lanes(item: Any, sums: Any, rows: Any, out: Any) -> None:
    """``out (K*C/G, F)``, the sum over the lanes in order; an item adds some rows."""
    number, size, pitch = out.dtype.type(0), out.itemsize, out.shape[0] * out.shape[1]
    count = (min(rows, out.shape[0] - item * rows)) * out.shape[1]
    place, source = out.ctypes.data + 0, sums.ctypes.data + 0
    place, source = place + size * item * rows * out.shape[1], source + size * item * rows * out.shape[1]
    copy_run(place, source, count, number)
    for lane in range(1, sums.shape[0]):
        add_run(place, source + size * lane * pitch, count, number)
