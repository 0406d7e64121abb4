"""Max, average and adaptive pools, forward and backward, of any number of spatial axes."""

from math import prod
from typing import Any, Protocol

import numpy as np

from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from ...recording.calls import empty
from .compiler import contiguous
from .halving_pool import HalvingMaxPool
from .pool import perform
from .pool_jobs import maxima, maxima_back, maxima_of_many, maxima_of_many_back, means, means_back
from .pool_tables import Table, bin_table, bins_of_cells, cell_table, window_table

# Entries that an item reads: some 10 to 20 microseconds.
ITEM_ENTRIES = 1 << 16
# A code of int8 is at most this.
MOST_INT8 = 127
FLOATS = ("float32", "float64")


class PoolWindows(Protocol):
    """Windows and padding of a pool: see `xpnn.layers.windows.geometry.Geometry`."""

    windows: Windows
    padding: PadWidths


class _Work:
    """The outputs of a table, for ``samples`` and ``channels``, cut into items."""

    def __init__(self, table: Table, inner: int, outer: int, samples: int, channels: int) -> None:
        self.table = table
        units = samples * len(table.parts)
        largest = max((p[1] - p[0]) * max(1, p[3] - p[2]) for p in table.parts.tolist()) if len(table.parts) else 1
        per = max(1, ITEM_ENTRIES // max(1, largest * channels))
        self.sizes = (inner, outer, channels, units, per)
        self.items = -(-units // per)


def _most(cells: int, channels: int) -> int:
    """Outputs of a part that combine ``cells`` inputs each."""
    return max(1, ITEM_ENTRIES // max(1, cells * channels))


class MaxPool:
    """Maxima over windows, and their gradient; arrays are ``(N, *S, C)``."""

    def __init__(self, windows: Windows, shape: tuple[int, ...], forth: Table, back: Table) -> None:
        samples, *spatial, channels = shape
        inner, outer = prod(spatial), prod(windows.count)
        self.shape, self.pooled = shape, (samples, *windows.count, channels)
        self.forth = _Work(forth, inner, outer, samples, channels)
        self.back = _Work(back, outer, inner, samples, channels)
        self.is_small = windows.cells <= MOST_INT8

    def forward(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and the row-major index in its window of the first one."""
        best, cell = empty(self.pooled, x.dtype), empty(self.pooled, np.int8 if self.is_small else np.int64)
        find, work = maxima if self.is_small else maxima_of_many, self.forth
        source = contiguous(x).reshape(-1)
        perform(find.bind(work.items, source, *work.table, best.reshape(-1), cell.reshape(-1), *work.sizes))
        return best, cell

    def backward(self, dy: Array, cell: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx, work = empty(self.shape, dy.dtype), self.back
        put = maxima_back if self.is_small else maxima_of_many_back
        given = contiguous(dy).reshape(-1), contiguous(cell).reshape(-1)
        perform(put.bind(work.items, *given, *work.table, dx.reshape(-1), *work.sizes))
        return dx


class _Means:
    """Sums over windows or bins, each over its divisor, and their adjoint; arrays are ``(N, *S, C)``."""

    def __init__(
        self, shape: tuple[int, ...], sizes: tuple[int, ...], forth: Table, back: Table, divisors: Array
    ) -> None:
        samples, *spatial, channels = shape
        inner, outer = prod(spatial), prod(sizes)
        self.shape, self.pooled, self.divisors = shape, (samples, *sizes, channels), divisors
        self.forth = _Work(forth, inner, outer, samples, channels)
        self.back = _Work(back, outer, inner, samples, channels)

    def forward(self, x: Array) -> Array:
        """The averages."""
        return self._compute(means, self.forth, x, self.pooled)

    def backward(self, dy: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        return self._compute(means_back, self.back, dy, self.shape)

    def _compute(self, job: Any, work: _Work, x: Array, shape: tuple[int, ...]) -> Array:
        y = empty(shape, x.dtype)
        given = contiguous(x).reshape(-1)
        perform(job.bind(work.items, given, *work.table, y.reshape(-1), self.divisors, *work.sizes))
        return y


class AdaptivePool:
    """Averages or maxima over bins, and their gradients; arrays are ``(N, *S, C)``."""

    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], forth: Table, back: Table, dtype: str) -> None:
        pairs = list(zip(shape[1:-1], sizes, strict=True))
        cells = [[-(-(i + 1) * n // m) - i * n // m for i in range(m)] for n, m in pairs]
        self._means = _Means(shape, sizes, forth, back, _products(cells, dtype))
        self.averages, self.averages_backward = self._means.forward, self._means.backward

    def maxima(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and their row-major indices within the spatial axes."""
        y, work = empty(self._means.pooled, x.dtype), self._means.forth
        index, given = empty(y.shape, np.int64), contiguous(x).reshape(-1)
        perform(maxima_of_many.bind(work.items, given, *work.table, y.reshape(-1), index.reshape(-1), *work.sizes))
        return y, index

    def maxima_backward(self, dy: Array, index: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx, work = empty(self._means.shape, dy.dtype), self._means.back
        given = contiguous(dy).reshape(-1), contiguous(index).reshape(-1)
        perform(maxima_of_many_back.bind(work.items, *given, *work.table, dx.reshape(-1), *work.sizes))
        return dx


def prepare_max(problem: tuple[PoolWindows, tuple[int, ...]], dtype: str) -> MaxPool | HalvingMaxPool | None:
    """A max pool of an input ``(N, *S, C)`` of that shape."""
    placed, shape = problem
    if dtype not in FLOATS:
        return None
    windows = placed.windows
    fits = all(2 * o <= n for n, o in zip(shape[1:-1], windows.count, strict=True)) and not _pads(placed)
    if windows.kernel == (2, 2) and windows.stride == (2, 2) and windows.dilation == (1, 1) and fits:
        return HalvingMaxPool(shape)
    tables = _tables(placed, shape)
    return None if tables is None else MaxPool(windows, shape, *tables)


def _tables(placed: PoolWindows, shape: tuple[int, ...]) -> tuple[Table, Table] | None:
    """The cells of the windows, and the windows of the cells; None if a table is too long."""
    windows, spatial, channels = placed.windows, shape[1:-1], shape[-1]
    before = tuple(pair[0] for pair in placed.padding)
    forth = window_table(spatial, windows, before, _most(windows.cells, channels))
    back = cell_table(spatial, windows, before, _most(1, channels))
    return None if forth is None or back is None else (forth, back)


def _pads(placed: PoolWindows) -> bool:
    return any(before or after for before, after in placed.padding)


def prepare_average(problem: tuple[PoolWindows, tuple[int, ...], bool, int | None], dtype: str) -> _Means | None:
    """An average pool of an input ``(N, *S, C)`` of that shape; without ``fixed`` a divisor counts the cells."""
    placed, shape, count_include_pad, fixed = problem
    tables = _tables(placed, shape) if dtype in FLOATS else None
    if tables is None:
        return None
    windows = placed.windows
    counts = _cells_of_windows(windows, placed.padding, shape[1:-1], count_include_pad)
    divisors = np.full(prod(windows.count), fixed, dtype) if fixed else _products(counts, dtype)
    return _Means(shape, windows.count, *tables, divisors)


def prepare_adaptive(problem: tuple[tuple[int, ...], tuple[int, ...]], dtype: str) -> AdaptivePool | None:
    """A pool of an input ``(N, *S, C)`` of that shape into a number of bins for each axis."""
    shape, sizes = problem
    spatial, channels = shape[1:-1], shape[-1]
    if dtype not in FLOATS:
        return None
    cells = prod(-(-n // m) for n, m in zip(spatial, sizes, strict=True))
    forth, back = bin_table(spatial, sizes, _most(cells, channels)), bins_of_cells(spatial, sizes, _most(1, channels))
    return None if forth is None or back is None else AdaptivePool(shape, sizes, forth, back, dtype)


def _cells_of_windows(windows: Windows, padding: PadWidths, spatial: tuple[int, ...], padded: bool) -> list[list[int]]:
    """Along each axis the number of cells of each window in the input, or in the padded input."""
    found = []
    for axis, n in enumerate(spatial):
        before, after = padding[axis]
        low, high = (-before, n + after) if padded else (0, n)
        first = [o * windows.stride[axis] - before for o in range(windows.count[axis])]
        reach = [range(at, at + windows.kernel[axis] * windows.dilation[axis], windows.dilation[axis]) for at in first]
        found.append([sum(low <= cell < high for cell in cells) for cells in reach])
    return found


def _products(counts: list[list[int]], dtype: str) -> Array:
    """All products of one count of each axis, row-major."""
    total = np.ones(1)
    for each in counts:
        total = (total[:, None] * np.array(each, np.float64)).reshape(-1)
    return total.astype(dtype)
