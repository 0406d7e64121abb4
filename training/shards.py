"""A batch in parts, on workers that add up as one.

In exact numerics a sum over the batch does not depend on who holds which samples (`xpnn.backends.team`): the workers
agree on scales and counts and add whole numbers. So a step on ``k`` parts gives the bits of a step on the whole batch,
batch norm and dropout included. The workers here are threads in lock-step, each with a copy of the model that shares
its weights; other means to run them need only another `Team`.
"""

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial, reduce
from typing import Any, Self, TypeAlias

from ..backends import Backend, use_backend
from ..backends.team import joined
from ..backends.types import Array, Namespace
from ..layers.base import Layer
from ..layers.geometry import is_integer
from ..layers.losses import Loss


class Meeting:
    """Where workers exchange what each has, once all are there."""

    def __init__(self, workers: int) -> None:
        self._barrier = threading.Barrier(workers)
        self._brought: list[Any] = [None] * workers

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """What all workers brought, in order of rank."""
        self._brought[rank] = value
        self._barrier.wait()
        brought = list(self._brought)
        self._barrier.wait()
        return brought

    def abort(self) -> None:
        """Send all away who wait, with `threading.BrokenBarrierError`."""
        self._barrier.abort()


class ThreadTeam:
    """One worker's view of a team of threads: `xpnn.backends.team.Team`."""

    def __init__(self, meeting: Meeting, rank: int, xp: Namespace) -> None:
        self._meeting, self._rank, self._xp = meeting, rank, xp

    def max(self, array: Array) -> Array:
        """Elementwise maximum over the workers; NaN wins."""
        return reduce(self._xp.maximum, self._meeting.exchange(self._rank, array))

    def sum(self, array: Array) -> Array:
        """Elementwise sum over the workers."""
        return reduce(lambda a, b: a + b, self._meeting.exchange(self._rank, array))

    def rows(self, n: int) -> int:
        """Total over the workers."""
        return sum(self._meeting.exchange(self._rank, n))

    def slice(self, n: int) -> tuple[int, int]:
        """Rows before this worker's, and rows of all."""
        counts = self._meeting.exchange(self._rank, n)
        return sum(counts[: self._rank]), sum(counts)


Step: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


@contextmanager
def stepper(model: Layer, loss: Loss, parts: int | Sequence[int]) -> Iterator[Step]:
    """What takes a batch and its target, adds to the model's gradients, and gives loss and predictions.

    Raises
    ------
    ValueError
        For parts that are no integers of at least 1.
    """
    sizes = [1] * parts if is_integer(parts) and parts >= 1 else list(parts) if isinstance(parts, Sequence) else []
    if not sizes or not all(is_integer(size) and size >= 1 for size in sizes):
        raise ValueError(f"shards takes an integer >= 1, or a sequence of them, got {parts!r}")
    if len(sizes) > 1 and model.backend.numerics == "exact":
        with Shards(model, loss, sizes) as shards:
            yield shards.step
    else:
        yield partial(accumulate, model, loss, sizes)


def accumulate(model: Layer, loss: Loss, sizes: Sequence[int], x: Array, target: Array) -> tuple[Array, Array]:
    """One part after the other, each with its share of the mean."""
    bounds = cuts(x.shape[0], sizes)
    values, predictions = [], []
    for a, b in itertools.pairwise(bounds):
        if a == b:
            continue
        share = (b - a) / x.shape[0]
        prediction = model.forward(x[a:b, ...] if share < 1.0 else x)
        value = loss.forward(prediction, target[a:b, ...] if share < 1.0 else target)
        model.backward(loss.backward(share), input_grad=False)
        values.append(value * share)
        predictions.append(prediction)
    if len(values) == 1:
        return values[0], predictions[0]
    return reduce(lambda a, b: a + b, values), model.backend.xp.concat(predictions, axis=0)


class Shards:
    """A model that takes its steps on parts of each batch, in exact numerics; use as a context manager.

    Parameters
    ----------
    model : Layer
        On a backend with exact numerics. Its own gradients, buffers and random streams are those of the whole batch.
    loss : Loss
    sizes : sequence of int
        Relative sizes of the parts, one for each worker.
    """

    def __init__(self, model: Layer, loss: Loss, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._backend: Backend = model.backend
        self._models = [model, *(copy.deepcopy(model) for _ in self._sizes[1:])]
        self._losses = [loss, *(copy.deepcopy(loss) for _ in self._sizes[1:])]
        self._pool = ThreadPoolExecutor(len(self._sizes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()

    def step(self, x: Array, target: Array) -> tuple[Array, Array]:
        """Forward and backward of a batch: its loss and predictions. Adds to the model's gradients."""
        held = dict(self._models[0].named_parameters())
        for replica in self._models[1:]:
            for name, parameter in replica.named_parameters():
                parameter.value, parameter.grad = held[name].value, None
        meeting = Meeting(len(self._sizes))
        bounds = cuts(x.shape[0], self._sizes)
        work: list[Callable[[], tuple[Array, Array]]] = [
            self._part(rank, meeting, x[a:b, ...], target[a:b, ...])
            for rank, (a, b) in enumerate(itertools.pairwise(bounds))
        ]
        done = [self._pool.submit(copy_context().run, each) for each in work]
        errors = [error for error in (future.exception() for future in done) if error is not None]
        if errors:
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        value, first = done[0].result()
        predictions = [first, *(future.result()[1] for future in done[1:])]
        return value, self._backend.xp.concat(predictions, axis=0)

    def _part(self, rank: int, meeting: Meeting, x: Array, target: Array) -> Callable[[], tuple[Array, Array]]:
        model, loss, b = self._models[rank], self._losses[rank], self._backend

        def work() -> tuple[Array, Array]:
            try:
                with joined(ThreadTeam(meeting, rank, b.xp)), use_backend(b):
                    prediction = model.forward(x)
                    value = loss.forward(prediction, target)
                    model.backward(loss.backward(), input_grad=False)
                    return value, prediction
            except BaseException:
                meeting.abort()
                raise

        return work


def cuts(samples: int, sizes: Sequence[int]) -> list[int]:
    """Where a batch is cut into parts of these relative sizes: ``0`` first and ``samples`` last."""
    whole, bounds = sum(sizes), [0]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    return [samples * bound // whole for bound in bounds]
