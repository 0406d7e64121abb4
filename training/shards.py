"""A batch in parts, on workers that add up as one.

In exact numerics a sum over the batch does not depend on who holds which samples (`xpnn.backends.execution.team`): the
workers agree on scales and counts and add whole numbers. So a step on ``k`` parts gives the bits of a step on the whole
batch, batch norm and dropout included. The workers here are threads in lock-step, each with a copy of the model that
shares its weights; other means to run them need only another `Team`.
"""

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial, reduce
from math import nan
from typing import Any, Self, TypeAlias

from ..backends import use_backend
from ..backends.execution.blocks import concat_all
from ..backends.execution.team import joined
from ..common import checks
from ..common.types import Array, Namespace
from ..layers.core.layer import Layer
from ..layers.core.parameter import Parameter
from ..layers.core.release_after_backward import released
from ..layers.losses import Loss


class Meeting:
    """Where workers exchange what each has, once all are there."""

    def __init__(self, workers: int) -> None:
        self._barrier = threading.Barrier(workers)
        self._brought: list[Any] = [None] * workers

    def exchange(self, rank: int, value: Any, what: object) -> list[Any]:
        """What all workers brought, in order of rank.

        Raises
        ------
        RuntimeError
            In all workers, unless all say that it is the same ``what``.
        """
        self._brought[rank] = what, value
        self._barrier.wait()
        brought = list(self._brought)
        self._barrier.wait()
        kinds = [str(kind) for kind, _ in brought]
        if len({*kinds}) > 1:
            raise RuntimeError(
                f"the parts of a batch went different ways: they are at {', '.join(kinds)}; with shards "
                "a layer or loss must take the same sums over the batch whatever its part holds"
            )
        return [value for _, value in brought]

    def abort(self) -> None:
        """Send all away who wait, with `threading.BrokenBarrierError`."""
        self._barrier.abort()


class ThreadTeam:
    """One worker's view of a team of threads: `xpnn.backends.execution.team.Team`."""

    def __init__(self, meeting: Meeting, rank: int, xp: Namespace) -> None:
        self._meeting, self._rank, self._xp = meeting, rank, xp

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
        """Rows before this worker's, and rows of all."""
        counts = self._exchange(n, "a place in the batch")
        return sum(counts[: self._rank]), sum(counts)

    def part(self) -> None:
        """Wait for the others to be done too."""
        self._exchange(None, "the end")

    def _exchange(self, value: Any, what: str) -> list[Any]:
        return self._meeting.exchange(self._rank, value, what)


#: Of which a step may be made; far more than any has.
MOST_PARTS = 1_000_000

Step: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def part_sizes(shards: int | Sequence[int]) -> list[int]:
    """Relative sizes of the parts; `ValueError` unless it is an integer of at least 1, or a sequence of them."""
    if checks.is_integer(shards) and shards >= 1:
        return [1] * checks.integer("shards", shards, 1, MOST_PARTS)
    return list(checks.shape("shards", shards, 1, "an integer >= 1, or a sequence of them"))


@contextmanager
def stepper(model: Layer, loss: Loss, sizes: Sequence[int]) -> Iterator[Step]:
    """What takes a batch and its target, adds to the model's gradients, and gives loss and predictions."""
    if len(sizes) == 1:
        yield partial(take, model, loss)
    elif in_parts_as_one(model, loss):
        with Shards(model, loss, sizes) as shards:
            yield shards.step
    else:
        # One sum in fast numerics, of a layer or of the loss, would be a worker's own.
        yield partial(accumulate, model, loss, sizes)


def in_parts_as_one(model: Layer, loss: Loss) -> bool:
    """Whether a step in parts gives the bits of the step on the whole batch: in exact numerics throughout."""
    own = model.backend if loss.follows else loss.backend
    backends = (own, *(layer.backend for _, layer in model.named_layers()))
    return all(b is not None and b.numerics == "exact" for b in backends)


def take(model: Layer, loss: Loss, x: Array, target: Array) -> tuple[Array, Array]:
    """The batch whole: its loss and predictions."""
    prediction = model.forward(x)
    value = loss.forward(prediction, target)
    with released():
        model.backward(loss.backward(), input_grad=False)
    return value, prediction


def accumulate(model: Layer, loss: Loss, sizes: Sequence[int], x: Array, target: Array) -> tuple[Array, Array]:
    """One part after the other: sums of losses, over what the mean of the whole batch divides by."""
    backend, terms, values, predictions = model.backend, None, [], []
    xp = backend.xp
    summed = copy.copy(loss)
    summed.reduction = "sum"
    for a, b in itertools.pairwise(cuts(x.shape[0], sizes)):
        if a == b:
            continue
        prediction = model.forward(x[a:b, ...])
        values.append(summed.forward(prediction, target[a:b, ...]))
        if terms is None:
            terms = loss.terms(prediction, target)
            # Where nothing counts the mean is NaN, and its gradient 0.
            with backend.context():
                nothing = terms == 0.0
                slope = 1.0 / xp.where(nothing, xp.ones_like(terms), terms)
                terms = xp.where(nothing, xp.full_like(terms, nan), terms)
        with released():
            model.backward(summed.backward(slope), input_grad=False)
        predictions.append(prediction)
    with backend.context():
        return reduce(lambda a, b: a + b, values) / terms, concat_all(predictions, 0, xp)


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
        self._sizes = sizes
        self._backend = model.backend
        self._workers: list[tuple[Layer, Loss]] = [(model, loss)]
        self._twins: list[tuple[Parameter, Parameter]] = []
        for _ in sizes[1:]:
            # Parameters are not copied: a twin holds the same array, and neither gradient nor optimizer state.
            twins = {parameter: Parameter(parameter.value) for _, parameter in model.named_parameters()}
            self._twins += twins.items()
            memo: dict[int, Any] = {id(parameter): twin for parameter, twin in twins.items()}
            self._workers.append((copy.deepcopy(model, memo), copy.deepcopy(loss)))
        self._pool = ThreadPoolExecutor(len(sizes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()

    def step(self, x: Array, target: Array) -> tuple[Array, Array]:
        """Forward and backward of a batch: its loss and predictions. Adds to the model's gradients."""
        for parameter, twin in self._twins:
            twin.value, twin.grad = parameter.value, None
        meeting, done = Meeting(len(self._sizes)), []
        try:
            for rank, (a, b) in enumerate(itertools.pairwise(cuts(x.shape[0], self._sizes))):
                work = partial(self._work, rank, meeting, x[a:b, ...], target[a:b, ...])
                done.append(self._pool.submit(copy_context().run, work))
            wait(done)
        except BaseException:
            # Who waits for a worker that was never started would wait forever.
            meeting.abort()
            raise
        errors = [error for error in (each.exception() for each in done) if error is not None]
        try:
            if errors:
                raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
            values, predictions = zip(*(each.result() for each in done), strict=True)
        finally:
            # An error, its traceback and this frame would hold each other, and the arrays of all workers.
            del errors, done
        with self._backend.context():
            return values[0], concat_all(predictions, 0, self._backend.xp)

    def _work(self, rank: int, meeting: Meeting, x: Array, target: Array) -> tuple[Array, Array]:
        team = ThreadTeam(meeting, rank, self._backend.xp)
        try:
            with joined(team), use_backend(self._backend):
                taken = take(*self._workers[rank], x, target)
                team.part()
                return taken
        except BaseException:
            meeting.abort()
            raise


def cuts(samples: int, sizes: Sequence[int]) -> list[int]:
    """Where a batch is cut into parts of these relative sizes: ``0`` first and ``samples`` last."""
    bounds = [0, *itertools.accumulate(sizes)]
    return [samples * bound // bounds[-1] for bound in bounds]
