"""Sums of gradients over the ranks, in flat buckets, which are exchanged while backward still computes.

Backward finds the gradients of the last layers first. Each is copied into its bucket as it arrives; a bucket that is
full is exchanged while the layers before are computed. After backward the gradients of the parameters are views of the
buckets, with the memory layout that backward gave them in the first step, on the first rank that had one: the same on
all ranks, which add entry by entry, and where a sum over the gradients must have the same bits.

All ranks exchange the same buckets in the same order, which is that of the arrivals on rank 0 in the first step. In the
first step, and for parameters that get more than one gradient in a step, buckets are exchanged after backward.

A parameter may have no gradient on a rank: one without samples, or one where a layer was not used. It counts as 0, and
only if it has none on any rank it has none afterwards. For that each bucket ends with a number for each parameter.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backends import backend_of, to_host
from ..backends.memory_order import axes_in_memory, inverse
from ..common.types import dtype_name
from ..layers.core.parameter import Parameter
from .buffers import is_native
from .communicator import Pending
from .group import Group

#: Bytes from which a bucket is exchanged, among few ranks. Larger ones overlap less with backward.
BUCKET_BYTES = 4 << 20
FEW = 8
#: The same among more: a ring takes as many messages for each bucket as twice the ranks (`docs/distributed.md`).
LARGE_BUCKET_BYTES = 32 << 20


class Interval(NamedTuple):
    """When a bucket was exchanged, or a part of a step computed: seconds of `time.perf_counter`."""

    what: str
    start: float
    end: float


class Bucket:
    """The gradients of some parameters in one buffer, and then for each whether it has one.

    Parameters
    ----------
    parameters : sequence of Parameter
    orders : sequence of tuple of int
        The axes of each parameter in the order of memory.
    dtype : str
    """

    def __init__(self, parameters: Sequence[Parameter], orders: Sequence[tuple[int, ...]], dtype: str) -> None:
        self.parameters = parameters
        sizes = [prod(parameter.shape) for parameter in parameters]
        starts = [0, *accumulate(sizes)]
        self._places = {id(p): slice(a, b) for p, a, b in zip(parameters, starts, starts[1:], strict=False)}
        self._entries = starts[-1]
        value = parameters[0].value
        # On the device of the parameters, or on the host.
        like: Any = value if is_native(value) else np.zeros(0)
        self.buffer: Any = np.zeros(self._entries + len(parameters), dtype=dtype, like=like)
        self._views: dict[int, Any] = {}
        for parameter, order in zip(parameters, orders, strict=True):
            flat = self.buffer[self._places[id(parameter)]]
            shape = [parameter.shape[axis] for axis in order]
            self._views[id(parameter)] = flat.reshape(shape).transpose(inverse(order))
        self._filled: set[int] = set()
        self.pending: Pending | None = None

    def empty(self) -> None:
        """Begin a step."""
        self._filled, self.pending = set(), None

    @property
    def is_full(self) -> bool:
        """Whether all gradients have arrived."""
        return len(self._filled) == len(self.parameters)

    def fill(self, parameter: Parameter) -> None:
        """Copy a parameter's gradient into the buffer, of which the gradient becomes a view."""
        gradient, key = parameter.grad, id(parameter)
        native: Any = gradient if is_native(gradient) else np.asarray(to_host(gradient))
        view = self._views[key]
        view[...] = native
        self._filled.add(key)
        if is_native(gradient):
            parameter.grad = view

    def complete(self) -> None:
        """Add what has not arrived in time; a parameter without a gradient counts as 0."""
        has = np.ones(len(self.parameters), self.buffer.dtype)
        for number, parameter in enumerate(self.parameters):
            if id(parameter) in self._filled:
                continue
            if parameter.grad is None:
                self.buffer[self._places[id(parameter)]] = 0.0
                has[number] = 0.0
            else:
                self.fill(parameter)
        self.buffer[self._entries :] = 1.0 if has.all() else np.asarray(has, like=self.buffer)

    def spread(self) -> None:
        """Make the sums the gradients of the parameters."""
        counts = None
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                counts = to_host(self.buffer[self._entries :]) if counts is None else counts
                if not counts[number]:
                    continue
            view = self._views[id(parameter)]
            if is_native(parameter.value):
                parameter.grad = view
            else:
                b = backend_of(parameter.value)
                parameter.grad = b.asarray(np.ascontiguousarray(view), dtype_name(self.buffer.dtype))


class GradientBuckets:
    """The buckets of a model.

    Parameters
    ----------
    group : Group
    parameters : sequence of Parameter
    bucket_bytes : int
        Size from which a bucket is exchanged; `BUCKET_BYTES` or `LARGE_BUCKET_BYTES` unless given.
    once : bool
        Whether a parameter gets one gradient in a step unless the first step shows otherwise; else all buckets are
        exchanged after backward.

    Attributes
    ----------
    timeline : list of Interval or None
        If it is a list, the exchanges are added to it.
    """

    def __init__(
        self, group: Group, parameters: Sequence[Parameter], bucket_bytes: int | None = None, *, once: bool = True
    ) -> None:
        self._group, self._once = group, once
        self._bytes = bucket_bytes or (BUCKET_BYTES if group.size <= FEW else LARGE_BUCKET_BYTES)
        self._parameters = list(dict.fromkeys(parameters))
        self.timeline: list[Interval] | None = None
        self._trained: list[Parameter] = []
        self._buckets: list[Bucket] = []
        # Each parameter's bucket, once the order is known.
        self._bucket_of: dict[int, Bucket] = {}
        # Gradients of each parameter in this step, in the order of the first ones.
        self._arrived: dict[int, int] = {}
        self._repeated: set[int] = set()
        # The bucket that is exchanged next, and when those before it were started.
        self._next = 0
        self._started: list[float] = []

    @contextmanager
    def summed(self) -> Iterator[None]:
        """After the ``with`` block, in which a rank computes its gradients once, they are the sums over all ranks."""
        self._begin()
        for parameter in self._trained:
            parameter.on_gradient = self._on_gradient
        try:
            yield
        finally:
            # What is computed after an error, such as to find a batch that fits into memory, is not exchanged.
            for parameter in self._trained:
                parameter.on_gradient = None
        self._finish()

    def _begin(self) -> None:
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        if trained != self._trained:
            self._trained, self._buckets, self._bucket_of, self._repeated = trained, [], {}, set()
        self._arrived, self._next = {}, 0
        for bucket in self._buckets:
            bucket.empty()

    def _on_gradient(self, parameter: Parameter) -> None:
        key = id(parameter)
        self._arrived[key] = self._arrived.get(key, 0) + 1
        bucket = self._bucket_of.get(key)
        if bucket is None or key in self._repeated:
            return
        if self._arrived[key] > 1:
            raise RuntimeError(
                f"a parameter of shape {parameter.shape} got a second gradient in this step, but one in the first; "
                "with a group each step must use a layer equally often"
            )
        bucket.fill(parameter)
        while self._next < len(self._buckets) and self._buckets[self._next].is_full:
            self._start_next()
        self._group.advance()

    def _start_next(self) -> None:
        bucket = self._buckets[self._next]
        bucket.complete()
        self._started.append(time.perf_counter())
        bucket.pending = self._group.start(bucket.buffer)
        self._next += 1

    def _finish(self) -> None:
        if not self._buckets:
            self._make_buckets()
        while self._next < len(self._buckets):
            self._start_next()
        for number, bucket in enumerate(self._buckets):
            assert bucket.pending is not None
            self._group.finish(bucket.pending)
            bucket.spread()
            if self.timeline is not None:
                self.timeline.append(Interval(f"bucket {number}", self._started[number], time.perf_counter()))
        self._started = []

    def _make_buckets(self) -> None:
        """Distribute the parameters, in the order in which their gradients arrived on rank 0; others come last."""
        position = {id(parameter): number for number, parameter in enumerate(self._trained)}
        arrived = [position[key] for key in self._arrived if key in position]
        repeated = [position[key] for key, count in self._arrived.items() if count > 1 and key in position]
        orders = {number: _order_in_memory(self._trained[number].grad) for number in arrived}
        every = self._group.gather((arrived, repeated, orders))
        order = [*every[0][0], *(each for each in reversed(range(len(self._trained))) if each not in set(every[0][0]))]
        repeated = [number for _, part, _ in every for number in part] if self._once else order
        self._repeated = {id(self._trained[number]) for number in repeated}
        agreed = {number: axes for _, _, found in reversed(every) for number, axes in found.items()}
        parts: list[tuple[str, list[Parameter], list[tuple[int, ...]]]] = []
        size = 0
        for number in order:
            parameter = self._trained[number]
            dtype = dtype_name(parameter.value.dtype)
            if not parts or dtype != parts[-1][0] or size >= self._bytes:
                parts.append((dtype, [], []))
                size = 0
            parts[-1][1].append(parameter)
            parts[-1][2].append(agreed.get(number, tuple(range(len(parameter.shape)))))
            size += prod(parameter.shape) * np.dtype(dtype).itemsize
        self._buckets = [Bucket(parameters, orders, dtype) for dtype, parameters, orders in parts]
        self._bucket_of = {id(each): bucket for bucket in self._buckets for each in bucket.parameters}


def _order_in_memory(gradient: Any) -> tuple[int, ...]:
    """The axes of a gradient, from the longest stride to the shortest."""
    native: Any = gradient if is_native(gradient) else np.asarray(to_host(gradient))
    return axes_in_memory(native.strides)
