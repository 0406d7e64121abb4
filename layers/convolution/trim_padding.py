"""Convolution with much padding, trimmed to the parts of input, kernel and output that meet.

With a kernel of three cells, a dilation of 10**9 and eight cells of input, only one cell of the kernel ever reads the
input; the others read padding. Here windows that read only padding, and cells of the kernel that never read the input,
are left out before anything is padded; they contribute 0. Where there is little padding nothing is left out, and no
bit of a result changes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from ...backends.contractions.windows import Windows
from ...common.types import Array
from ..windows.geometry import require_padding
from .problem import Problem

# Cells of padding along an axis above which a problem is trimmed.
LITTLE_PADDING = 4096

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Trimmed:
    """The parts that meet, along each spatial axis, and the convolution of them; ``problem`` is None if none do."""

    problem: Problem | None
    inputs: Slices
    cells: Slices
    outputs: Slices


@lru_cache(maxsize=1024)
def trim(problem: Problem) -> Trimmed | None:
    """The parts of a convolution with much padding; None for any other.

    Raises
    ------
    ValueError
        If windows that meet the input are so far apart that the padding between them does not fit in memory.
    """
    if problem.rotated or all(before + after <= LITTLE_PADDING for before, after in problem.padding):
        return None
    w = problem.windows
    axes = zip(problem.spatial, w.kernel, w.stride, w.dilation, w.count, problem.padding, strict=True)
    met = [_trim_axis(n, k, s, d, count, before) for n, k, s, d, count, (before, _) in axes]
    inputs, cells, outputs = (
        tuple(each[0] for each in met),
        tuple(each[1] for each in met),
        tuple(each[2] for each in met),
    )
    if any(part.stop <= part.start for part in (*inputs, *cells, *outputs)):
        return Trimmed(None, inputs, cells, outputs)
    kernel, count, spatial = (tuple(p.stop - p.start for p in parts) for parts in (cells, outputs, inputs))
    # With one window the stride does not matter, with one cell the dilation.
    stride = tuple(s if o > 1 else 1 for s, o in zip(w.stride, count, strict=True))
    dilation = tuple(d if k > 1 else 1 for d, k in zip(w.dilation, kernel, strict=True))
    windows = Windows(kernel, stride, dilation, count)
    padding = tuple(
        (before, max(0, extent - before - n))
        for before, extent, n in zip((each[3] for each in met), windows.extent, spatial, strict=True)
    )
    require_padding(spatial, padding, count)
    return Trimmed(replace(problem, spatial=spatial, windows=windows, padding=padding), inputs, cells, outputs)


def _trim_axis(n: int, k: int, s: int, d: int, count: int, before: int) -> tuple[slice, slice, slice, int]:
    """Along one axis the cells of the input, those of the kernel, the windows, and the padding before, that remain."""
    cells, windows = (0, k - 1), (0, count - 1)
    for _ in range(2):
        # Window o reads the input at o s + j d - before with cell j of the kernel, which must be in 0 .. n - 1.
        windows = max(0, -((cells[1] * d - before) // s)), min(count - 1, (n - 1 + before - cells[0] * d) // s)
        cells = max(0, -((windows[1] * s - before) // d)), min(k - 1, (n - 1 + before - windows[0] * s) // d)
    start = windows[0] * s + cells[0] * d - before
    first = max(0, start)
    return slice(first, n), slice(cells[0], cells[1] + 1), slice(windows[0], windows[1] + 1), max(0, -start)


def part_of_input(x: Array, part: Slices) -> Array:
    """These cells of ``x (N, *S, C)``, or of an output."""
    return x[(slice(None), *part, slice(None))]


def part_of_weight(weight: Array, part: Slices) -> Array:
    """These cells of ``weight (F, C, *K)``."""
    return weight[(slice(None), slice(None), *part)]
