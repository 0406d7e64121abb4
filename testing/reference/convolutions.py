"""Convolutions, transposed convolutions and dense layers as loops."""

from itertools import product
from typing import Any

import numpy as np

from .shapes import sources
from .windows import Host, Results, Upstream, Walk, padding_pairs, per_axis, wide, zeros


def convolution(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Conv1d`` to ``Conv3d``."""
    weight = wide(layer.parameters["weight"].value)
    if layer.padding_mode != "zeros":
        return _bordered(layer, x, upstream)
    return _convolved(layer, x, weight, layer.padding, upstream)


def _bordered(layer: Any, x: Host, upstream: Upstream) -> Results:
    """A convolution of the input with cells of its own around it."""
    weight, axes = wide(layer.parameters["weight"].value), x.ndim - 2
    stride, dilation = per_axis(layer.stride, axes), per_axis(layer.dilation, axes)
    pads = padding_pairs(layer.padding, x.shape[2:], list(weight.shape[2:]), stride, dilation)
    cells = sources(x.shape[2:], pads, layer.padding_mode)
    padded = zeros((*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))))
    for out, at in cells:
        padded[(..., *out)] = x[(..., *at)]
    found = _convolved(layer, padded, weight, 0, upstream)
    dx = zeros(x.shape)
    for out, at in cells:
        dx[(..., *at)] += found["dx"][(..., *out)]
    return found | {"dx": dx}


def _convolved(layer: Any, x: Host, weight: Host, padding: Any, upstream: Upstream) -> Results:
    walk = Walk(x.shape[2:], weight.shape[2:], layer.stride, padding, layer.dilation)
    samples, features, groups = x.shape[0], weight.shape[0], layer.groups
    y = zeros((samples, features, *walk.count))
    dy = wide(upstream(y.shape))
    dx, dweight = zeros(x.shape), zeros(weight.shape)
    f, c = features // groups, x.shape[1] // groups
    for window, cells in walk:
        for cell, at in cells:
            for g in range(groups):
                out, inp = slice(g * f, (g + 1) * f), slice(g * c, (g + 1) * c)
                w, x_cell, dy_cell = weight[(out, ..., *cell)], x[(slice(None), inp, *at)], dy[:, out][(..., *window)]
                y[(slice(None), out, *window)] += x_cell @ w.T
                dx[(slice(None), inp, *at)] += dy_cell @ w
                dweight[(out, slice(None), *cell)] += dy_cell.T @ x_cell
    return _with_bias(layer, y, dx, dweight, dy)


def transposed(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``ConvTranspose1d`` to ``ConvTranspose3d``: each input cell adds its product with the kernel to the output."""
    weight = wide(layer.parameters["weight"].value)
    spatial, kernel = x.shape[2:], list(weight.shape[2:])
    axes = len(spatial)
    stride, dilation, extra = (per_axis(v, axes) for v in (layer.stride, layer.dilation, layer.output_padding))
    pads = padding_pairs(layer.padding, spatial, kernel, stride, dilation)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError("more output padding than stride and dilation")
    axis = zip(spatial, stride, dilation, kernel, pads, extra, strict=True)
    size = tuple((n - 1) * s + (k - 1) * d + 1 - sum(p) + e for n, s, d, k, p, e in axis)
    if min(size) < 1 or min(spatial) < 1:
        raise ValueError("the output is empty")
    groups = layer.groups
    f, c = weight.shape[1], x.shape[1] // groups
    y = zeros((x.shape[0], f * groups, *size))
    dy = wide(upstream(y.shape))
    dx, dweight = zeros(x.shape), zeros(weight.shape)
    for source in np.ndindex(*spatial):
        for cell in product(*map(range, kernel)):
            sizes = zip(source, stride, cell, dilation, pads, strict=True)
            at = tuple(i * s + k * d - before for i, s, k, d, (before, _) in sizes)
            if not all(0 <= i < n for i, n in zip(at, size, strict=True)):
                continue
            for g in range(groups):
                out, inp = slice(g * f, (g + 1) * f), slice(g * c, (g + 1) * c)
                w, x_cell = weight[(inp, ..., *cell)], x[(slice(None), inp, *source)]
                dy_cell = dy[(slice(None), out, *at)]
                y[(slice(None), out, *at)] += x_cell @ w
                dx[(slice(None), inp, *source)] += dy_cell @ w.T
                dweight[(inp, slice(None), *cell)] += x_cell.T @ dy_cell
    return _with_bias(layer, y, dx, dweight, dy)


def _with_bias(layer: Any, y: Host, dx: Host, dweight: Host, dy: Host) -> Results:
    found = {"y": y, "dx": dx, "dweight": dweight}
    if "bias" in layer.parameters:
        bias = wide(layer.parameters["bias"].value)
        found |= {"y": y + bias.reshape(1, -1, *(1,) * (y.ndim - 2)), "dbias": dy.sum(axis=(0, *range(2, dy.ndim)))}
    return found


def dense(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Dense``."""
    weight = wide(layer.parameters["weight"].value)
    y = zeros((*x.shape[:-1], len(weight)))
    dy = wide(upstream(y.shape))
    dx, dweight, dbias = zeros(x.shape), zeros(weight.shape), zeros(len(weight))
    for row in np.ndindex(*x.shape[:-1]):
        for f in range(len(weight)):
            y[(*row, f)] = x[row] @ weight[f]
            dx[row] += dy[(*row, f)] * weight[f]
            dweight[f] += dy[(*row, f)] * x[row]
            dbias[f] += dy[(*row, f)]
    found = {"y": y, "dx": dx, "dweight": dweight}
    if "bias" in layer.parameters:
        found |= {"y": y + wide(layer.parameters["bias"].value), "dbias": dbias}
    return found
