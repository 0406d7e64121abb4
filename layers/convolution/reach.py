"""Convolution with much padding: the parts of input, kernel and output that meet.

A kernel of three cells with a dilation of 10**9 on eight cells of input reads, but for one cell, nothing but padding.
Here windows that read padding alone, and cells of the kernel that no window has in the input, are left out before
anything is padded; what they would have added is 0. Where there is little padding, nothing is left out, and results
have the bits that they always had.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from ...backends.contractions.windows import Windows
from ...common.types import Array
from ..windows.geometry import require_padding
from .problem import Problem

# Cells of padding along an axis from which it is looked at.
MUCH = 4096

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Reach:
    """The parts that meet, along each spatial axis, and the convolution of them; None where nothing does."""

    problem: Problem | None
    inputs: Slices
    cells: Slices
    outputs: Slices


@lru_cache(maxsize=1024)
def reach(problem: Problem) -> Reach | None:
    """The parts of a convolution with much padding; None for any other.

    Raises
    ------
    ValueError
        Where windows that meet the input are so far apart that what lies between them can't be held.
    """
    if problem.rotated or all(before + after <= MUCH for before, after in problem.padding):
        return None
    w = problem.windows
    axes = zip(problem.spatial, w.kernel, w.stride, w.dilation, w.count, problem.padding, strict=True)
    met = [_along(n, k, s, d, count, before) for n, k, s, d, count, (before, _) in axes]
    inputs, cells, outputs = (
        tuple(each[0] for each in met),
        tuple(each[1] for each in met),
        tuple(each[2] for each in met),
    )
    if any(part.stop <= part.start for part in (*inputs, *cells, *outputs)):
        return Reach(None, inputs, cells, outputs)
    kernel, count, spatial = (tuple(p.stop - p.start for p in parts) for parts in (cells, outputs, inputs))
    # A step between things of which there is one is any.
    stride = tuple(s if o > 1 else 1 for s, o in zip(w.stride, count, strict=True))
    dilation = tuple(d if k > 1 else 1 for d, k in zip(w.dilation, kernel, strict=True))
    windows = Windows(kernel, stride, dilation, count)
    padding = tuple(
        (before, max(0, extent - before - n))
        for before, extent, n in zip((each[3] for each in met), windows.extent, spatial, strict=True)
    )
    require_padding(spatial, padding, count)
    return Reach(replace(problem, spatial=spatial, windows=windows, padding=padding), inputs, cells, outputs)


def _along(n: int, k: int, s: int, d: int, count: int, before: int) -> tuple[slice, slice, slice, int]:
    """Of one axis the cells of the input, of the kernel and the windows that may meet, and the padding before them."""
    cells, windows = (0, k - 1), (0, count - 1)
    for _ in range(2):
        # Window o has cell j of the kernel at o s + j d - before, which is to lie in 0 .. n - 1.
        windows = max(0, -((cells[1] * d - before) // s)), min(count - 1, (n - 1 + before - cells[0] * d) // s)
        cells = max(0, -((windows[1] * s - before) // d)), min(k - 1, (n - 1 + before - windows[0] * s) // d)
    start = windows[0] * s + cells[0] * d - before
    first = max(0, start)
    return slice(first, n), slice(cells[0], cells[1] + 1), slice(windows[0], windows[1] + 1), max(0, -start)


def of_spatial(x: Array, where: Slices) -> Array:
    """The part of ``x (N, *S, C)``."""
    return x[(slice(None), *where, slice(None))]


def of_kernel(weight: Array, where: Slices) -> Array:
    """The part of ``weight (F, C, *K)``."""
    return weight[(slice(None), slice(None), *where)]
