"""Layers that move or repeat values, as loops."""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ... import layers
from .windows import Host, Results, Upstream, padding_pairs, per_axis, wide, zeros


def source(i: int, n: int, mode: str) -> int:
    """The cell of an axis of ``n`` that cell ``i`` of its border copies; ``i`` is negative before the axis."""
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % n
    # Reflected at the first cell, and at the last.
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def sources(spatial: Any, pads: Any, mode: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each cell of the padded input and the cell of the input that it copies."""
    for n, pair in zip(spatial, pads, strict=True):
        if max(pair) > {"reflect": n - 1, "replicate": max(pair) if n else -1, "circular": n}[mode] and max(pair):
            raise ValueError("more padding than cells")
    sizes = [n + before + after for n, (before, after) in zip(spatial, pads, strict=True)]
    axes = list(zip(spatial, pads, strict=True))
    return [
        (out, tuple(source(i - before, n, mode) for i, (n, (before, _)) in zip(out, axes, strict=True)))
        for out in np.ndindex(*sizes)
    ]


def pad(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Pad``."""
    ones = [1] * (x.ndim - 2)
    pads = padding_pairs(layer.padding, x.shape[2:], ones, ones, ones)
    if layer.mode != "constant":
        y = zeros((*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))))
        dy, dx = wide(upstream(y.shape)), zeros(x.shape)
        for out, at in sources(x.shape[2:], pads, layer.mode):
            y[(..., *out)] = x[(..., *at)]
            dx[(..., *at)] += dy[(..., *out)]
        return {"y": y, "dx": dx}
    y = zeros((*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True)))) + layer.value
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for at in np.ndindex(*x.shape[2:]):
        out = tuple(i + before for i, (before, _) in zip(at, pads, strict=True))
        y[(..., *out)], dx[(..., *at)] = x[(..., *at)], dy[(..., *out)]
    return {"y": y, "dx": dx}


def upsample(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Upsample``: each output as a sum over the cells along all axes, with products of weights."""
    axes = x.ndim - 2
    sizes = [None] * axes if layer.size is None else per_axis(layer.size, axes)
    given = layer.scale_factor
    scales = list(given) if isinstance(given, Sequence) else [given] * axes
    along = []
    for n, size, scale in zip(x.shape[2:], sizes, scales, strict=True):
        count = int(np.floor(n * scale)) if size is None else size
        step = n / count if scale is None else 1 / scale
        along.append([_weights(layer, o, n, count, step) for o in range(count)])
    y, dx = zeros((*x.shape[:2], *map(len, along))), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for out in np.ndindex(*y.shape[2:]):
        for cells in product(*(axis[o] for axis, o in zip(along, out, strict=True))):
            at, share = tuple(cell for cell, _ in cells), prod(weight for _, weight in cells)
            y[(..., *out)] += share * x[(..., *at)]
            dx[(..., *at)] += share * dy[(..., *out)]
    return {"y": y, "dx": dx}


def _weights(layer: Any, o: int, n: int, count: int, step: float) -> list[tuple[int, float]]:
    """The cells of an axis of ``n`` of which output ``o`` consists, with their weights."""
    if n == count and layer.mode in ("nearest", "linear", "bilinear", "trilinear"):
        return [(o, 1.0)]
    if layer.mode.startswith("nearest"):
        shift = 0.5 if layer.mode == "nearest-exact" else 0.0
        return [(min(int(np.floor(np.float32((o + shift) * float(np.float32(step))))), n - 1), 1.0)]
    place = (o + 0.5) * step - 0.5
    if layer.align_corners:
        place = o * (n - 1) / (count - 1) if count > 1 else 0.0
    if layer.mode != "bicubic":
        place = min(max(place, 0.0), n - 1.0)
        # Cells within a distance of 1, and the next one even if its weight is 0.
        first = int(np.floor(place))
        return [(first, 1 - (place - first)), (min(first + 1, n - 1), place - first)]
    first = int(np.floor(place)) - 1
    return [(min(max(i, 0), n - 1), _keys(abs(place - i))) for i in range(first, first + 4)]


def _keys(d: float) -> float:
    """The kernel of cubic convolution with a = -3/4 at a distance."""
    a = -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def pixel_shuffle(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``PixelShuffle``."""
    r = layer.upscale_factor
    y = zeros((len(x), x.shape[1] // r**2, x.shape[2] * r, x.shape[3] * r))
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for c, h, w in np.ndindex(*y.shape[1:]):
        at = (c * r**2 + h % r * r + w % r, h // r, w // r)
        y[:, c, h, w], dx[(slice(None), *at)] = x[(slice(None), *at)], dy[:, c, h, w]
    return {"y": y, "dx": dx}


def pixel_unshuffle(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``PixelUnshuffle``."""
    r = layer.downscale_factor
    y = zeros((len(x), x.shape[1] * r**2, x.shape[2] // r, x.shape[3] // r))
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for c, h, w in np.ndindex(*x.shape[1:]):
        at = (c * r**2 + h % r * r + w % r, h // r, w // r)
        y[(slice(None), *at)], dx[:, c, h, w] = x[:, c, h, w], dy[(slice(None), *at)]
    return {"y": y, "dx": dx}


def in_order(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Flatten``, ``Reshape`` and ``Identity``: the same values in the same order."""
    shape: tuple[int, ...] = x.shape
    if isinstance(layer, layers.Flatten):
        first, last = (axis % x.ndim for axis in (layer.start_dim, layer.end_dim))
        shape = (*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    if isinstance(layer, layers.Reshape):
        known = prod(n for n in layer.shape if n != -1)
        shape = (len(x), *(prod(x.shape[1:]) // known if n == -1 else n for n in layer.shape))
    y = zeros(shape)
    y.flat[:] = list(x.flat)
    dx = zeros(x.shape)
    dx.flat[:] = list(np.asarray(upstream(shape)).flat)
    return {"y": y, "dx": dx}
