"""Parts of a batch on threads that compute sums together, in exact numerics.

There a sum over the batch does not depend on how the samples are distributed (`xpnn.backends.execution.team`): the
workers agree on scales and counts and add whole numbers. So a step on ``k`` parts has the bits of a step on the whole
batch, batch norm and dropout included. Each worker is a thread with a copy of the model that shares its weights, and
all run in lock-step; separate processes would only need another `Team`.
"""

import copy
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial, reduce
from typing import Any, Self

from ..backends import use_backend
from ..backends.execution.blocks import concat_all
from ..backends.execution.team import joined
from ..common.types import Array, Namespace
from ..layers.core.layer import Layer
from ..layers.core.parameter import Parameter
from ..layers.losses import Loss
from .gradients import forward_backward
from .inputs import sample_count, some_samples
from .share import part_bounds


class ExchangeBarrier:
    """A barrier at which workers exchange values: each waits until all have arrived."""

    def __init__(self, workers: int) -> None:
        self._barrier = threading.Barrier(workers)
        self._values: list[Any] = [None] * workers

    def exchange(self, rank: int, value: Any, what: object) -> list[Any]:
        """The values of all workers, in order of rank.

        Raises
        ------
        RuntimeError
            In all workers, if they do not all exchange the same ``what``.
        """
        self._values[rank] = what, value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        kinds = [str(kind) for kind, _ in values]
        if len({*kinds}) > 1:
            raise RuntimeError(
                f"the parts of a batch computed different sums: they are at {', '.join(kinds)}; with shards "
                "a layer or loss must compute the same sums over the batch whatever its part holds"
            )
        return [value for _, value in values]

    def abort(self) -> None:
        """Make all workers that wait raise `threading.BrokenBarrierError`."""
        self._barrier.abort()


class ThreadTeam:
    """One thread's `xpnn.backends.execution.team.Team`."""

    def __init__(self, barrier: ExchangeBarrier, rank: int, xp: Namespace) -> None:
        self._barrier, self._rank, self._xp = barrier, rank, xp

    def max(self, array: Array) -> Array:
        """Elementwise maximum over the workers; NaN wins."""
        return reduce(self._xp.maximum, self._exchange(array, f"a maximum of shape {tuple(array.shape)}"))

    def sum(self, array: Array) -> Array:
        """Elementwise sum over the workers."""
        return reduce(lambda a, b: a + b, self._exchange(array, f"a sum of shape {tuple(array.shape)}"))

    def rows(self, n: int) -> int:
        """Total over the workers."""
        return sum(self._exchange(n, "a number of rows"))

    def slice(self, n: int) -> tuple[int, int]:
        """Number of rows of the workers before this one, and of all workers."""
        counts = self._exchange(n, "a place in the batch")
        return sum(counts[: self._rank]), sum(counts)

    def finish(self) -> None:
        """Wait until all workers are done."""
        self._exchange(None, "the end")

    def _exchange(self, value: Any, what: str) -> list[Any]:
        return self._barrier.exchange(self._rank, value, what)


class Shards:
    """A model that computes parts of each batch on threads, in exact numerics; use as a context manager.

    Parameters
    ----------
    model : Layer
        On a backend with exact numerics. Its own gradients, buffers and random streams become those of the whole
        batch.
    loss : Loss
    sizes : sequence of int
        Relative sizes of the parts, one for each worker.
    """

    def __init__(self, model: Layer, loss: Loss, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._backend = model.backend
        self._workers: list[tuple[Layer, Loss]] = [(model, loss)]
        self._twins: list[tuple[Parameter, Parameter]] = []
        for _ in sizes[1:]:
            # A twin holds the parameter's array, not a copy, and neither gradient nor optimizer state.
            twins = {parameter: Parameter(parameter.value) for _, parameter in model.named_parameters()}
            self._twins += twins.items()
            memo: dict[int, Any] = {id(parameter): twin for parameter, twin in twins.items()}
            self._workers.append((copy.deepcopy(model, memo), copy.deepcopy(loss)))
        self._pool = ThreadPoolExecutor(len(sizes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()

    def forward_backward(self, x: Array, target: Array) -> tuple[Array, Array]:
        """Adds to the model's gradients; returns the loss and the predictions of the batch."""
        for parameter, twin in self._twins:
            twin.value, twin.grad, twin.requires_grad = parameter.value, None, parameter.requires_grad
        model, *others = [[layer for _, layer in worker.named_layers()] for worker, _ in self._workers]
        for layers in others:
            for layer, own in zip(model, layers, strict=True):
                own.training = layer.training
        barrier, futures = ExchangeBarrier(len(self._sizes)), []
        try:
            for rank, (a, b) in enumerate(itertools.pairwise(part_bounds(sample_count(x), self._sizes))):
                work = partial(self._work, rank, barrier, some_samples(x, a, b), target[a:b, ...])
                futures.append(self._pool.submit(copy_context().run, work))
            wait(futures)
        except BaseException:
            # Workers would wait forever for one that was never started.
            barrier.abort()
            raise
        errors = [error for error in (each.exception() for each in futures) if error is not None]
        try:
            if errors:
                raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
            values, predictions = zip(*(each.result() for each in futures), strict=True)
        finally:
            # An error, its traceback and this frame would form a cycle that keeps the arrays of all workers.
            del errors, futures
        with self._backend.context():
            return values[0], concat_all(predictions, 0, self._backend.xp)

    def _work(self, rank: int, barrier: ExchangeBarrier, x: Array, target: Array) -> tuple[Array, Array]:
        team = ThreadTeam(barrier, rank, self._backend.xp)
        try:
            with joined(team), use_backend(self._backend):
                results = forward_backward(*self._workers[rank], x, target)
                team.finish()
                return results
        except BaseException:
            barrier.abort()
            raise
