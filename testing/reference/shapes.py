"""Layers that move or repeat values, as loops."""

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
    """``Upsample``."""
    scale = per_axis(layer.scale_factor, x.ndim - 2)
    y = zeros((*x.shape[:2], *(n * s for n, s in zip(x.shape[2:], scale, strict=True))))
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for out in np.ndindex(*y.shape[2:]):
        at = tuple(i // s for i, s in zip(out, scale, strict=True))
        y[(..., *out)] = x[(..., *at)]
        dx[(..., *at)] += dy[(..., *out)]
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
