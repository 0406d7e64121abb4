"""Cross-entropy of logits with classes: forward and backward as one program each, cut by targets.

Sums over the targets are added up in float64, in the order of the items. Semantics are those of the CUDA engine
(`xpnn.backends.engines.cuda.cross_entropy`): a target that is no class has the loss NaN, and an ignored one 0.
"""

from math import log, prod
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import contiguous, njit
from .exponential import exponential
from .jobs import INT, NUMBER, bind_phases, job, read, write
from .pool import perform

# Logits of an item: some 20 microseconds.
ITEM_LOGITS = 1 << 13
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


@njit(error_model="numpy")
def _weight_of(target: Any, weight: Any, classes: Any, ignored: Any, one: Any) -> Any:
    """The weight of a target; 0 if it is ignored, and NaN if it is no class."""
    if target == ignored:
        return one - one
    if target < 0 or target >= classes:
        return one * np.nan
    return weight[target] if weight.shape[0] else one


@njit(inline="always")
def max_of(x: Any, y: Any) -> Any:
    """The larger number; ``y`` if either is NaN."""
    return x if x > y else y


@njit(error_model="numpy", fastmath={"contract"})
def _exponentials(x: Any, out: Any) -> Any:
    """``exp(x - largest)`` to ``out``; returns the largest entry and the sum, which is NaN if an entry is NaN."""
    most, zero, classes = x[0], out.dtype.type(0), x.shape[0]
    # Four lanes, so that a comparison need not wait for the one before.
    a = b = c = d = most
    whole = classes // 4
    for i in range(whole):
        a, b = max_of(x[4 * i], a), max_of(x[4 * i + 1], b)
        c, d = max_of(x[4 * i + 2], c), max_of(x[4 * i + 3], d)
    for i in range(4 * whole, classes):
        a = max_of(x[i], a)
    most = max_of(max_of(a, b), max_of(c, d))
    for i in range(classes):
        out[i] = exponential(zero if x[i] == np.inf else x[i] - most)
    a = b = c = d = zero
    for i in range(whole):
        a, b, c, d = a + out[4 * i], b + out[4 * i + 1], c + out[4 * i + 2], d + out[4 * i + 3]
    for i in range(4 * whole, classes):
        a += out[i]
    return most, (a + b) + (c + d)


_FORWARD = (read(2), read(1, "int64"), read(1), write(2), write(2, "float64"), write(1), write(1), INT, INT, INT, INT)


@job(*_FORWARD)
def losses(
    item: Any,
    x: Any,
    targets: Any,
    weight: Any,
    scratch: Any,
    parts: Any,
    each: Any,
    value: Any,
    chunk: Any,
    ignored: Any,
    is_each: Any,
    is_mean: Any,
) -> None:
    """The losses of an item's targets, or their sum and that of their weights."""
    classes, one = x.shape[1], scratch.dtype.type(1)
    total, weights = 0.0, 0.0
    for i in range(item * chunk, min((item + 1) * chunk, x.shape[0])):
        target = targets[i]
        share = _weight_of(target, weight, classes, ignored, one)
        loss = share
        if share != 0:
            most, exponentials = _exponentials(x[i], scratch[item])
            at_target = x[i, target if 0 <= target < classes else 0]
            below = one - one if at_target == np.inf else at_target - most
            loss = (log(exponentials) - below) * share
        total += loss
        weights += share
        if is_each:
            each[i] = loss
    parts[item, 0], parts[item, 1] = total, weights


@job(*_FORWARD)
def reduce_losses(
    item: Any,
    x: Any,
    targets: Any,
    weight: Any,
    scratch: Any,
    parts: Any,
    each: Any,
    value: Any,
    chunk: Any,
    ignored: Any,
    is_each: Any,
    is_mean: Any,
) -> None:
    """The sum or mean of all items."""
    total, weights = 0.0, 0.0
    for i in range(parts.shape[0]):
        total += parts[i, 0]
        weights += parts[i, 1]
    if is_mean:
        total = total / weights if weights != 0 else np.nan
    value[0] = total


_BACKWARD = (
    *(read(2), read(1, "int64"), read(1), write(1, "float64"), read(1), write(2)),
    *(NUMBER, INT, INT, INT, INT),
)


@job(*_BACKWARD)
def weights_of_items(
    item: Any,
    x: Any,
    targets: Any,
    weight: Any,
    parts: Any,
    upstream: Any,
    dx: Any,
    number: Any,
    chunk: Any,
    ignored: Any,
    is_each: Any,
    is_mean: Any,
) -> None:
    """The sum of the weights of an item's targets."""
    total, one = 0.0, dx.dtype.type(1)
    for i in range(item * chunk, min((item + 1) * chunk, x.shape[0])):
        total += _weight_of(targets[i], weight, x.shape[1], ignored, one)
    parts[item] = total


@job(*_BACKWARD)
def slopes(
    item: Any,
    x: Any,
    targets: Any,
    weight: Any,
    parts: Any,
    upstream: Any,
    dx: Any,
    number: Any,
    chunk: Any,
    ignored: Any,
    is_each: Any,
    is_mean: Any,
) -> None:
    """The gradient for an item's targets."""
    classes, one = x.shape[1], dx.dtype.type(1)
    divisor = 1.0
    if is_mean:
        divisor = 0.0
        for j in range(parts.shape[0]):
            divisor += parts[j]
        divisor = divisor if divisor != 0 else 1.0
    divisor = dx.dtype.type(divisor)
    for i in range(item * chunk, min((item + 1) * chunk, x.shape[0])):
        target, to = targets[i], dx[i]
        if target == ignored:
            to[:] = 0
            continue
        share = _weight_of(target, weight, classes, ignored, one)
        dy = number
        if upstream.shape[0]:
            dy = upstream[i if is_each else 0]
        factor = share * dy / divisor
        _, total = _exponentials(x[i], to)
        at_target = target if 0 <= target < classes else 0
        expected = (to[at_target] / total - one) * factor
        factor /= total
        for c in range(classes):
            to[c] *= factor
        to[at_target] = expected


class CrossEntropy:
    """Cross-entropy of ``logits (N, *S, C)`` with classes ``(N, *S)``, without label smoothing."""

    def __init__(self, shape: tuple[int, ...], dtype: str, ignored: int, reduction: str) -> None:
        self.shape, self.name, self.dtype, self.ignored = shape, dtype, np.dtype(dtype), ignored
        self.is_each, self.is_mean = reduction == "none", reduction == "mean"
        self.count, self.classes = prod(shape[:-1]), shape[-1]
        self.chunk = max(1, ITEM_LOGITS // self.classes)
        self.items = max(1, -(-self.count // self.chunk))
        self._nothing = np.empty(0, self.dtype)

    def forward(self, logits: Array, target: Array, weight: Array | None) -> Array:
        """The losses ``(N, *S)``, or their sum or mean, 0-d."""
        dtype = self.dtype
        each = empty((self.count,), dtype) if self.is_each else self._nothing
        value = self._nothing if self.is_each else empty((1,), dtype)
        scratch, parts = empty((self.items, self.classes), dtype), empty((self.items, 2), np.float64)
        phases = [(losses, self.items)] if self.is_each else [(losses, self.items), (reduce_losses, 1)]
        arrays = (*self._inputs(logits, target, weight), scratch, parts, each, value)
        numbers = (self.chunk, self.ignored, self.is_each, self.is_mean)
        perform(bind_phases(phases, *arrays, *numbers, dtype=self.name))
        return each.reshape(self.shape[:-1]) if self.is_each else value.reshape(())

    def backward(self, dy: Array | float, logits: Array, target: Array, weight: Array | None) -> Array:
        """The gradient ``(N, *S, C)``, for an upstream gradient that is a number, 0-d or ``(N, *S)``."""
        is_number = isinstance(dy, int | float)
        given: Any = self._nothing if is_number else dy if isinstance(dy, np.ndarray) else np.asarray(dy)
        upstream = contiguous(given).reshape(-1)
        dx, parts = empty((self.count, self.classes), self.dtype), empty((self.items,), np.float64)
        phases = [(slopes, self.items)]
        if self.is_mean:
            phases.insert(0, (weights_of_items, self.items))
        arrays = (*self._inputs(logits, target, weight), parts, upstream, dx)
        numbers = (dy if is_number else 1.0, self.chunk, self.ignored, self.is_each, self.is_mean)
        perform(bind_phases(phases, *arrays, *numbers, dtype=self.name))
        return dx.reshape(self.shape)

    def _inputs(self, logits: Array, target: Array, weight: Array | None) -> tuple[Array, Array, Array]:
        """Logits ``(M, C)``, classes ``(M,)`` and weights, contiguous."""
        target = target if target.dtype == np.int64 else target.astype(np.int64)
        weight = self._nothing if weight is None else contiguous(weight)
        return (
            contiguous(logits).reshape(self.count, self.classes),
            contiguous(target).reshape(self.count),
            weight,
        )


def prepare(problem: tuple[tuple[int, ...], str, int, str], dtype: str) -> CrossEntropy | None:
    """For a problem ``(shape of the logits (N, *S, C), dtype of the targets, ignored class, reduction)``."""
    shape, target, ignored, reduction = problem
    fits = shape[-1] > 0 and target in INTEGERS and -(2**63) <= ignored < 2**63
    return CrossEntropy(shape, dtype, ignored, reduction) if fits else None
