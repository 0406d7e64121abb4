"""Losses as loops over entries, in Python's own numbers."""

from collections.abc import Callable
from math import exp, inf, isnan, log, log1p, nan, prod
from typing import Any, TypeAlias

import numpy as np

from ... import layers
from ...backends import get_backend
from ...layers.losses import Loss
from .windows import Host, Results, Upstream

# The lower limit of p * (1 - p) in binary cross-entropy. In PyTorch it is a float32 number for float64 too.
SMALLEST_VARIANCE = float(np.float32(1e-12))
#: The loss and its derivative for a prediction and a target.
Pair: TypeAlias = Callable[[float, float], tuple[float, float]]


def loss_results(loss: Loss, prediction: Host, target: Host, upstream: Upstream) -> Results | None:
    """``loss`` and ``dx``, by the names of `LossCase.run`; None for losses without loops."""
    p = np.asarray(prediction, dtype=np.float64)
    if isinstance(loss, layers.Dice):
        return _dice(loss, p, target, upstream)
    if isinstance(loss, layers.Focal):
        return _focal(loss, p, target, upstream)
    if isinstance(loss, layers.CrossEntropy | layers.NLL):
        return _of_classes(loss, p, target, upstream)
    pair = _pair(loss)
    if pair is None:
        return None
    t = np.asarray(target, dtype=np.float64)
    weight, pos = (_weights(getattr(loss, name, None), p.shape) for name in ("weight", "pos_weight"))
    losses, slopes = np.zeros(p.shape), np.zeros(p.shape)
    for at in np.ndindex(*p.shape):
        if isinstance(loss, layers.BinaryCrossEntropyWithLogits):
            x, v = float(p[at]), float(pos[at])
            losses[at] = v * t[at] * _softplus(-x) + (1 - t[at]) * _softplus(x)
            slopes[at] = (1 - t[at]) * _sigmoid(x) - v * t[at] * _sigmoid(-x)
        else:
            losses[at], slopes[at] = pair(float(p[at]), float(t[at]))
        losses[at], slopes[at] = losses[at] * weight[at], slopes[at] * weight[at]
    return _reduced(loss.reduction, losses, slopes, prod(p.shape), upstream)


def _weights(given: Any, shape: tuple[int, ...]) -> Host:
    host = np.ones(()) if given is None else given.on(get_backend("numpy", "float64", "fast"), np.dtype(np.float64))
    return np.broadcast_to(host, shape)


def _reduced(reduction: str, losses: Host, slopes: Host, count: float, upstream: Upstream) -> Results:
    """Loss and gradient after the reduction, for the losses and derivatives of all entries."""
    if reduction == "none":
        dy = np.asarray(upstream(losses.shape), dtype=np.float64)
        return {"loss": losses, "dx": slopes * (dy if dy.ndim == slopes.ndim else np.expand_dims(dy, 1))}
    by = {"sum": 1.0, "mean": count, "batchmean": float(losses.shape[0] if losses.ndim else 1)}[reduction]
    total = np.asarray(sum(losses.flat, 0.0))
    return {"loss": total / by if by else np.asarray(nan), "dx": slopes / (by or 1.0)}


def _of_classes(loss: Any, scores: Host, target: Host, upstream: Upstream) -> Results:
    """Cross-entropy and negative log-likelihood; ``q`` is the target probability of each class."""
    samples, classes, *rest = scores.shape
    weight = _weights(loss.weight, (classes,))
    smoothing = getattr(loss, "label_smoothing", 0.0)
    losses, slopes, count = np.zeros((samples, *rest)), np.zeros(scores.shape), 0.0
    has_classes = target.dtype.kind in "iu"
    for at in np.ndindex(samples, *rest):
        row = [float(scores[(at[0], c, *at[1:])]) for c in range(classes)]
        if has_classes:
            y = int(target[at])
            if y == loss.ignore_index:
                continue
            count += weight[y]
            q = [(1 - smoothing) * weight[y] * (c == y) + smoothing * weight[c] / classes for c in range(classes)]
        else:
            p = [float(target[(at[0], c, *at[1:])]) for c in range(classes)]
            q = [weight[c] * ((1 - smoothing) * p[c] + smoothing / classes) for c in range(classes)]
            count += 1.0
        if isinstance(loss, layers.NLL):
            log_p, slope = row, [-each for each in q]
        else:
            most = max(row) if not any(map(isnan, row)) else nan
            total = sum(exp(v - most) for v in row)
            log_p = [v - most - log(total) for v in row]
            slope = [exp(log_p[c]) * sum(q) - q[c] for c in range(classes)]
        losses[at] = sum(-a * b for a, b in zip(q, log_p, strict=True) if a)
        for c in range(classes):
            slopes[(at[0], c, *at[1:])] = slope[c]
    return _reduced(loss.reduction, losses, slopes, count, upstream)


def _softmax(row: list[float]) -> list[float]:
    if any(map(isnan, row)):
        return [nan] * len(row)
    powers = [exp(each - max(row)) for each in row]
    return [each / sum(powers) for each in powers]


def _focal(loss: Any, x: Host, target: Host, upstream: Upstream) -> Results:
    """Focal loss; the slope is the derivative by the logarithm of p, and of that by the logits."""
    gamma, alpha, slopes = loss.gamma, loss.alpha, np.zeros(x.shape)
    if target.dtype.kind == "f":
        losses = np.zeros(x.shape)
        for at in np.ndindex(*x.shape):
            v, t = float(x[at]), float(target[at])
            yes, no = _sigmoid(v), _sigmoid(-v)
            share = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
            entropy, q = t * _softplus(-v) + (1 - t) * _softplus(v), t * no + (1 - t) * yes
            bend = gamma * (1 - 2 * t) * (yes * no / q if q else 0.0) * entropy
            losses[at] = share * q**gamma * entropy
            slopes[at] = share * q**gamma * ((1 - t) * yes - t * no + bend)
        return _reduced(loss.reduction, losses, slopes, x.size, upstream)
    samples, classes, *rest = x.shape
    weight = np.full(classes, alpha) if isinstance(alpha, float) else _weights(alpha, (classes,))
    losses, count = np.zeros((samples, *rest)), 0.0
    for at in np.ndindex(samples, *rest):
        y = int(target[at])
        if y == loss.ignore_index:
            continue
        count += 1.0
        row = [float(x[(at[0], c, *at[1:])]) for c in range(classes)]
        p = _softmax(row)
        log_p = row[y] - max(row) - log(sum(exp(each - max(row)) for each in row))
        others = sum(each for c, each in enumerate(p) if c != y)
        losses[at] = -weight[y] * others**gamma * log_p
        slope = weight[y] * others**gamma * (1 - gamma * p[y] * (log_p / others if others else -1.0))
        for c in range(classes):
            slopes[(at[0], c, *at[1:])] = slope * (p[c] - (c == y))
    return _reduced(loss.reduction, losses, slopes, count, upstream)


def _dice(loss: Any, x: Host, target: Host, upstream: Upstream) -> Results:
    """Dice loss of each sample and class; the derivatives through softmax as a sum over classes."""
    samples, classes, *rest = x.shape
    has_classes = target.dtype.kind in "iu"
    p, t = np.zeros(x.shape), np.zeros(x.shape)
    counts, losses, slopes = np.zeros((samples, classes)), np.zeros((samples, classes)), np.zeros(x.shape)
    kept = np.zeros(x.shape, bool)
    for n, *at in np.ndindex(samples, *rest):
        row = [float(x[(n, c, *at)]) for c in range(classes)]
        ways = _softmax(row) if has_classes else [_sigmoid(each) if each == each else nan for each in row]
        for c in range(classes):
            here = (n, c, *at)
            p[here] = ways[c] if loss.from_logits else row[c]
            t[here] = float(int(target[(n, *at)]) == c) if has_classes else target[here]
            kept[here] = (target[(n, *at)] if has_classes else target[here]) != loss.ignore_index
    for n, c in np.ndindex(samples, classes):
        mine = [(float(p[(n, c, *at)]), float(t[(n, c, *at)])) for at in np.ndindex(*rest) if kept[(n, c, *at)]]
        counts[n, c] = float(bool(mine))
        overlap, total = sum(a * b for a, b in mine), sum(a + b for a, b in mine)
        losses[n, c] = 1 - (2 * overlap + loss.smooth) / (total + loss.smooth) if total + loss.smooth else 0.0
    dy = np.asarray(upstream(losses.shape), np.float64) if loss.reduction == "none" else np.ones(losses.shape)
    for n, *at in np.ndindex(samples, *rest):
        by_p = []
        for c in range(classes):
            total = sum(float(p[(n, c, *b)] + t[(n, c, *b)]) for b in np.ndindex(*rest) if kept[(n, c, *b)])
            slope = (1 - losses[n, c] - 2 * t[(n, c, *at)]) / (total + loss.smooth or 1.0) * dy[n, c]
            by_p.append(slope if kept[(n, c, *at)] else 0.0)
        own = [float(p[(n, c, *at)]) for c in range(classes)]
        for c in range(classes):
            if not loss.from_logits:
                slopes[(n, c, *at)] = by_p[c]
            elif has_classes:
                slopes[(n, c, *at)] = sum(by_p[k] * own[k] * ((k == c) - own[c]) for k in range(classes))
            else:
                slopes[(n, c, *at)] = by_p[c] * own[c] * (1 - own[c])
    by = {"none": 1.0, "sum": 1.0, "mean": float(counts.sum())}[loss.reduction]
    value = losses if loss.reduction == "none" else np.asarray(losses.sum() / by if by else nan)
    return {"loss": value, "dx": slopes / (by or 1.0)}


def _pair(loss: Any) -> Pair | None:
    """The loss and derivative of one entry; None for losses without loops."""
    if isinstance(loss, layers.MSE | layers.L2):
        return lambda p, t: ((p - t) ** 2, 2 * (p - t))
    if isinstance(loss, layers.MAE | layers.L1):
        return lambda p, t: (abs(p - t), _sign(p - t))
    if isinstance(loss, layers.MSLE):
        return lambda p, t: ((log1p(p) - log1p(t)) ** 2, 2 * (log1p(p) - log1p(t)) / (1 + p))
    if isinstance(loss, layers.MAPE):
        return lambda p, t: (100 * abs(p - t) / max(abs(t), 1e-7), 100 * _sign(p - t) / max(abs(t), 1e-7))
    if isinstance(loss, layers.Huber):
        return lambda p, t: _huber(p - t, loss.delta, 1.0)
    if isinstance(loss, layers.SmoothL1):
        beta = loss.beta
        return lambda p, t: _huber(p - t, beta, beta) if beta else (abs(p - t), _sign(p - t))
    if isinstance(loss, layers.BinaryCrossEntropy):
        return _binary
    if isinstance(loss, layers.BinaryCrossEntropyWithLogits):
        return lambda x, t: (0.0, 0.0)
    if isinstance(loss, layers.KLDivergence):
        return _kl_of_logarithms if loss.log_target else _kl
    return None


def _huber(z: float, delta: float, by: float) -> tuple[float, float]:
    if abs(z) <= delta:
        return z * z / 2 / by, z / by
    return (delta * (abs(z) - delta / 2) / by, delta * _sign(z) / by) if z == z else (nan, nan)


def _binary(p: float, t: float) -> tuple[float, float]:
    yes, no = max(log(p) if p else -inf, -100.0), max(log1p(-p) if p < 1 else -inf, -100.0)
    return -(t * yes + (1 - t) * no), (p - t) / max(p * (1 - p), SMALLEST_VARIANCE)


def _kl(log_p: float, t: float) -> tuple[float, float]:
    return (t * (log(t) - log_p) if t else 0.0), -t


def _kl_of_logarithms(log_p: float, log_t: float) -> tuple[float, float]:
    return (exp(log_t) * (log_t - log_p) if log_t > -inf else 0.0), -exp(log_t)


def _sign(z: float) -> float:
    return float(z > 0) - float(z < 0) if z == z else nan


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
