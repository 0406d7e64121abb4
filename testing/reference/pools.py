"""Pools as loops: maxima, averages and Lp norms over windows, and over the bins of adaptive pools."""

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .windows import Host, Index, Results, Upstream, Walk, wide, zeros


def pooled(layer: Any, x: Host, dilation: Any) -> Walk:
    """The windows of a pool; `ValueError` if one of them covers no cell of the input."""
    padding = layer.padding
    walk = Walk(x.shape[2:], layer.kernel_size, layer.stride, padding, dilation, layer.ceil_mode)
    for (before, after), k, d in zip(walk.pads, walk.kernel, walk.dilation, strict=True):
        if max(before, after) * 2 > d * (k - 1) + 1 and not walk.padded_by_pairs:
            raise ValueError("more padding than half a window")
    if not all(cells for _, cells in walk):
        raise ValueError("a window that covers only padding")
    return walk


def first_largest(values: Host) -> Host:
    """The first cell with the maximum in ``values (cells, N, C)``, or the first with NaN."""
    best = zeros(values.shape[1:], dtype=int)
    largest = values[0].copy()
    for k, value in enumerate(values):
        wins = (value > largest) | (np.isnan(value) & ~np.isnan(largest))
        best, largest = np.where(wins, k, best), np.where(wins, value, largest)
    return best


def _maxima(
    x: Host, upstream: Upstream, count: Index, windows: Iterable[tuple[Index, list[Index]]]
) -> tuple[Results, Host]:
    """Maxima over the cells of each ``(window, cells)``, and the indices of the maxima in their planes."""
    y, indices, dx = (
        zeros((*x.shape[:2], *count)),
        zeros((*x.shape[:2], *count), dtype=np.int64),
        zeros(x.shape),
    )
    dy = wide(upstream(y.shape))
    for window, cells in windows:
        values = np.stack([x[(..., *at)] for at in cells])
        best = first_largest(values)
        for plane in np.ndindex(*x.shape[:2]):
            at = cells[best[plane]]
            y[(*plane, *window)] = x[(*plane, *at)]
            dx[(*plane, *at)] += dy[(*plane, *window)]
            indices[(*plane, *window)] = np.ravel_multi_index(at, x.shape[2:])
    return {"y": y, "dx": dx}, indices


def max_pool(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``MaxPool1d`` to ``MaxPool3d``."""
    walk = pooled(layer, x, layer.dilation)
    found, indices = _maxima(x, upstream, walk.count, ((o, [at for _, at in cells]) for o, cells in walk))
    return found | ({"indices": indices} if layer.return_indices else {})


def average_pool(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``AvgPool1d`` to ``AvgPool3d``: over the cells of a window in the padded input or in the input."""
    walk = pooled(layer, x, layer.dilation)
    y, dx = zeros((*x.shape[:2], *walk.count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for window, cells in walk:
        share = len(cells)
        if layer.count_include_pad:
            axis = zip(walk.starts, window, walk.kernel, walk.dilation, x.shape[2:], walk.pads, strict=True)
            share = prod(sum(s[o] + i * d < n + after for i in range(k)) for s, o, k, d, n, (_, after) in axis)
        if layer.divisor_override is not None:
            share = layer.divisor_override
        for _, at in cells:
            y[(..., *window)] += x[(..., *at)] / share
            dx[(..., *at)] += dy[(..., *window)] / share
    return {"y": y, "dx": dx}


def _lp_norms(x: Host, p: float, upstream: Upstream, count: Index, windows: list[tuple[Index, list[Index]]]) -> Results:
    """Norms over the cells of each ``(window, cells)``."""
    y, dx = zeros((*x.shape[:2], *count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for window, cells in windows:
        for at in cells:
            y[(..., *window)] += np.abs(x[(..., *at)]) ** p
    y = y ** (1 / p)
    for window, cells in windows:
        norm = y[(..., *window)]
        for at in cells:
            ratio = np.abs(x[(..., *at)]) / np.where(norm == 0, 1.0, norm)
            slope = np.sign(x[(..., *at)]) * (ratio ** (p - 1) if p > 1 else 1.0)
            dx[(..., *at)] += np.where(norm == 0, 0.0, dy[(..., *window)] * slope)
    return {"y": y, "dx": dx}


def lp_pool(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``LpPool1d`` to ``LpPool3d``."""
    walk = pooled(layer, x, layer.dilation)
    return _lp_norms(x, layer.norm_type, upstream, walk.count, [(o, [at for _, at in cells]) for o, cells in walk])


def global_lp(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``GlobalLpPool``: one window, the plane."""
    count, windows = bins(x.shape[2:], 1)
    return _lp_norms(x, layer.norm_type, upstream, count, windows)


def bins(spatial: tuple[int, ...], output_size: Any) -> tuple[Index, list[tuple[Index, list[Index]]]]:
    """The number of bins of an adaptive pool, and ``(bin, cells)`` for each: the cells that it overlaps."""
    if not all(spatial):
        raise ValueError("no cells")
    given = output_size if isinstance(output_size, Sequence) else [output_size] * len(spatial)
    count = tuple(n if m is None else int(m) for n, m in zip(spatial, given, strict=True))
    along = [
        [[j for j in range(n) if (j + 1) * m > i * n and j * m < (i + 1) * n] for i in range(m)]
        for n, m in zip(spatial, count, strict=True)
    ]
    every = np.ndindex(*count)
    return count, [(o, list(product(*(axis[i] for axis, i in zip(along, o, strict=True))))) for o in every]


def adaptive_average(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``AdaptiveAvgPool`` and ``GlobalAvgPool``."""
    count, windows = bins(x.shape[2:], layer.output_size)
    y, dx = zeros((*x.shape[:2], *count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for window, cells in windows:
        for at in cells:
            y[(..., *window)] += x[(..., *at)] / len(cells)
            dx[(..., *at)] += dy[(..., *window)] / len(cells)
    return {"y": y, "dx": dx}


def adaptive_maximum(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``AdaptiveMaxPool`` and ``GlobalMaxPool``."""
    return _maxima(x, upstream, *bins(x.shape[2:], layer.output_size))[0]
