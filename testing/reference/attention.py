"""Embeddings and attention as loops over positions."""

from math import exp, sqrt
from typing import Any

import numpy as np

from .windows import Host, Results, Upstream, wide, zeros


def embedding(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Embedding``."""
    weight = wide(layer.parameters["weight"].value)
    y = zeros((*x.shape, weight.shape[1]))
    dy, dweight = wide(upstream(y.shape)), zeros(weight.shape)
    for at in np.ndindex(*x.shape):
        row = int(x[at])
        y[at] = weight[row]
        if row != layer.padding_idx:
            dweight[row] += dy[at]
    return {"y": y, "dweight": dweight}


def positions(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``PositionEmbedding``."""
    weight = wide(layer.parameters["weight"].value)
    y, dy, dweight = zeros(x.shape), wide(upstream(x.shape)), zeros(weight.shape)
    for n, at in np.ndindex(*x.shape[:2]):
        y[n, at] = x[n, at] + weight[at]
        dweight[at] += dy[n, at]
    return {"y": y, "dx": dy, "dweight": dweight}


def permute(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``Permute``."""
    y = zeros((x.shape[0], *(x.shape[axis] for axis in layer.axes)))
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for at in np.ndindex(*x.shape):
        to = (at[0], *(at[axis] for axis in layer.axes))
        y[to], dx[at] = x[at], dy[to]
    return {"y": y, "dx": dx}


def attention(layer: Any, x: Host, upstream: Upstream) -> Results:
    """``MultiHeadAttention``, one query after the other."""
    values = {name: wide(parameter.value) for name, parameter in layer.parameters.items()}
    (n, length, features), heads = x.shape, layer.num_heads
    size, dy, none = features // heads, wide(upstream(x.shape)), zeros(3 * features)
    inner, outer = values["in_proj_weight"], values["out_proj.weight"]
    kept = np.ones((n, heads, length, length))
    if layer.training and layer.dropout:
        drawn = layer.stream.at_least(kept.shape, layer.dropout, layer.backend)
        kept = wide(drawn) / (1.0 - layer.dropout) if layer.dropout < 1.0 else 0.0 * kept
    y, dx, joined, djoined = zeros(x.shape), zeros(x.shape), zeros(x.shape), zeros(x.shape)
    projected = zeros((n, length, 3 * features))
    dprojected = zeros(projected.shape)
    for at in np.ndindex(n, length):
        projected[at] = inner @ x[at] + values.get("in_proj_bias", none)
    for s, h, i in np.ndindex(n, heads, length):
        q, k, v = (slice(part * features + h * size, part * features + (h + 1) * size) for part in range(3))
        own = slice(h * size, (h + 1) * size)
        seen = range(i + 1 if layer.causal else length)
        scores = [projected[s, i, q] @ projected[s, j, k] / sqrt(size) for j in seen]
        largest = max(scores)
        weights = [exp(score - largest) for score in scores]
        p = [weight / sum(weights) for weight in weights]
        # A position that is not seen has probability 0, but a NaN times 0 is NaN.
        zero = sum((0.0 * projected[s, j, v] for j in range(length)), zeros(size))
        joined[s, i, own] = zero + sum(p[j] * kept[s, h, i, j] * projected[s, j, v] for j in seen)
        g = djoined[s, i, own] = outer[:, own].T @ dy[s, i]
        dp = [kept[s, h, i, j] * (g @ projected[s, j, v]) for j in seen]
        mean = sum(p[j] * dp[j] for j in seen)
        for j in seen:
            dscore = p[j] * (dp[j] - mean) / sqrt(size)
            dprojected[s, i, q] += dscore * projected[s, j, k]
            dprojected[s, j, k] += dscore * projected[s, i, q]
            dprojected[s, j, v] += p[j] * kept[s, h, i, j] * g
    found: dict[str, Host] = {
        "din_proj_weight": zeros(inner.shape),
        "din_proj_bias": dprojected.sum(axis=(0, 1)),
        "dout_proj.weight": zeros(outer.shape),
        "dout_proj.bias": dy.sum(axis=(0, 1)),
    }
    for at in np.ndindex(n, length):
        y[at] = outer @ joined[at] + values.get("out_proj.bias", none[:features])
        dx[at] = inner.T @ dprojected[at]
        found["din_proj_weight"] += np.outer(dprojected[at], x[at])
        found["dout_proj.weight"] += np.outer(dy[at], joined[at])
    return {"y": y, "dx": dx, **{f"d{name}": found[f"d{name}"] for name in values}}
