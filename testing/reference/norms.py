"""Normalisation as loops over the groups that share a mean and a variance."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .windows import Host, Index, Results, Upstream, wide, zeros


def _normalised(
    layer: Any, x: Host, dy: Host, groups: list[Any], entry: Callable[[Index], Any], fixed: Any = None
) -> Results:
    """Normalise each group of cells separately; ``entry`` returns the index of the weight of a cell.

    ``fixed`` are given means and variances of the groups, which are constants in the gradient.
    """
    weight, bias = (
        wide(layer.parameters[name].value) if name in layer.parameters else None for name in ("weight", "bias")
    )
    y, dx, xhat = zeros(x.shape), zeros(x.shape), zeros(x.shape)
    w = np.ones(x.shape) if weight is None else zeros(x.shape)
    b = zeros(x.shape)
    for at in np.ndindex(*x.shape):
        if weight is not None:
            w[at] = weight[entry(at)]
        if bias is not None:
            b[at] = bias[entry(at)]
    for i, cells in enumerate(groups):
        values = x[cells]
        if not values.size:
            continue
        mean, var = (values.mean(), values.var()) if fixed is None else (fixed[0][i], fixed[1][i])
        spread = np.sqrt(var + layer.eps)
        xhat[cells] = normal = (values - mean) / spread
        y[cells] = normal * w[cells] + b[cells]
        g = dy[cells] * w[cells]
        dx[cells] = g / spread if fixed is not None else (g - g.mean() - normal * (g * normal).mean()) / spread
    found = {"y": y, "dx": dx}
    for name, value, share in (("weight", weight, dy * xhat), ("bias", bias, dy)):
        if value is not None:
            total = zeros(value.shape)
            for at in np.ndindex(*x.shape):
                total[entry(at)] += share[at]
            found[f"d{name}"] = total
    return found


def channel_norm(layer: Any, x: Host, upstream: Upstream) -> Results:
    """BatchNorm and InstanceNorm, and the update of their running statistics."""
    dy = wide(upstream(x.shape))
    channels, counts = x.shape[1], layer.counts_batches
    # A group is a channel in batch norm, and a channel of one sample in instance norm.
    samples: list[Any] = [slice(None)] if counts else [slice(n, n + 1) for n in range(len(x))]
    groups = [(n, c) for n in samples for c in range(channels)]
    running = {name: np.array(array, dtype=np.float64) for name, array in layer.buffers.items()}
    fixed = None
    if not layer.training and layer.track_running_stats:
        fixed = ([running["running_mean"][c] for _, c in groups], [running["running_var"][c] for _, c in groups])
    elif prod(x.shape[2:]) * (len(x) if counts else 1) == 1:
        raise ValueError("one value has no variance")
    found = _normalised(layer, x, dy, groups, lambda at: at[1], fixed)
    if layer.track_running_stats:
        if layer.training:
            running["num_batches_tracked"] = running["num_batches_tracked"] + int(counts)
        if layer.training and x.size:
            share = 1 / running["num_batches_tracked"] if layer.momentum is None else layer.momentum
            for c in range(channels):
                some = [x[cells] for cells in groups if cells[1] == c]
                batch = {
                    "running_mean": np.mean(some, axis=None),
                    "running_var": np.mean([v.var(ddof=1) for v in some]),
                }
                for name, value in batch.items():
                    running[name][c] += share * (value - running[name][c])
        found |= running
    return found


def layer_norm(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``LayerNorm``."""
    dy = wide(upstream(x.shape))
    lead = x.ndim - len(layer.normalized_shape)
    return _normalised(layer, x, dy, list(np.ndindex(*x.shape[:lead])), lambda at: at[lead:])


def group_norm(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``GroupNorm``."""
    dy, size = wide(upstream(x.shape)), x.shape[1] // layer.num_groups
    groups = [(n, slice(g * size, (g + 1) * size)) for n in range(len(x)) for g in range(layer.num_groups)]
    return _normalised(layer, x, dy, groups, lambda at: at[1])


def rms_norm(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``RMSNorm``, one row at a time."""
    dy, lead = wide(upstream(x.shape)), x.ndim - len(layer.normalized_shape)
    weight = wide(layer.parameters["weight"].value) if layer.elementwise_affine else np.ones(x.shape[lead:])
    # The distance from 1 to the next float32, or float64.
    eps = (2.0**-52 if layer.backend.dtype_name == "float64" else 2.0**-23) if layer.eps is None else layer.eps
    y, dx, dweight = zeros(x.shape), zeros(x.shape), zeros(weight.shape)
    for row in np.ndindex(*x.shape[:lead]):
        root = np.sqrt((x[row] ** 2).mean() + eps)
        normal, g = x[row] / root, dy[row] * weight
        y[row], dx[row] = normal * weight, (g - normal * (g * normal).mean()) / root
        dweight += dy[row] * normal
    return {"y": y, "dx": dx} | ({"dweight": dweight} if layer.elementwise_affine else {})


def local_response(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``LocalResponseNorm``: the derivative of each output for each channel of its window."""
    dy, channels = wide(upstream(x.shape)), x.shape[1]
    y, dx = zeros(x.shape), zeros(x.shape)
    for c in range(channels):
        window = [i for i in range(c - layer.size // 2, c - layer.size // 2 + layer.size) if 0 <= i < channels]
        s = zeros(x[:, c].shape) + layer.k
        for i in window:
            s += layer.alpha / layer.size * x[:, i] ** 2
        y[:, c] = x[:, c] * s**-layer.beta
        dx[:, c] += dy[:, c] * s**-layer.beta
        for i in window:
            slope = -layer.beta * x[:, c] * s ** (-layer.beta - 1) * 2 * layer.alpha / layer.size * x[:, i]
            dx[:, i] += dy[:, c] * slope
    return {"y": y, "dx": dx}
