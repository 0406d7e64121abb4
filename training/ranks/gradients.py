"""The gradients of a batch of which each rank has some samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from ...backends import to_host
from ...backends.execution.team import joined, placed
from ...common.types import Array
from ...distributed.buckets import GradientBuckets
from ...distributed.process_team import ProcessTeam
from ...layers.core.grad_mode import no_grad
from ...layers.core.release_after_backward import released
from ...layers.core.snapshot import streams
from ..evaluation import in_mode
from ..gradients import accumulate, forward_backward
from ..inputs import sample_count, some_samples
from ..run import Run
from ..share import rank_bounds

# Ranks are this power of two apart in a random stream, while each draws by itself.
_APART = 40


class GroupGradients:
    """Computes this rank's part of a batch and leaves the gradients of the whole batch, the same on all ranks.

    In exact numerics the ranks are the workers of a team, whose sums over the batch have the bits of one process. In
    fast numerics each computes the gradient of its samples' share of the mean, and the gradients are added in buckets
    while backward runs; the loss and the predictions that are returned are those of its samples, None without any.

    Parameters
    ----------
    run : Run
        Of several processes.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._group = run, run.group
        parameters = [parameter for _, parameter in run.model.named_parameters()]
        # Batch norms with a group exchange sums in backward. A rank that lacks a gradient would start its buckets later
        # than others, and these must come in one order.
        self._synchronises = any(getattr(layer, "group", None) is not None for _, layer in run.model.named_layers())
        once = run.options.accumulate == 1 and not self._synchronises
        self.buckets = None if run.parts_are_exact else GradientBuckets(run.group, parameters, once=once)
        self._parts = run.options.accumulate
        # Whether the mean divides by a multiple of the number of samples; None before the first step.
        self._by_samples: bool | None = None

    def __call__(self, x: Array, target: Array, scale: float = 1.0) -> tuple[Any, Any]:
        """Adds to the gradients; returns loss and predictions."""
        run, rank = self._run, self._group.rank
        bounds = rank_bounds(run.samples_of_step(), self._group.size)
        if self.buckets is None:
            with joined(ProcessTeam(self._group, bounds)):
                return forward_backward(run.model, run.loss, x, target)
        with self._own_streams(), self.buckets.summed(), placed(sample_count(x), bounds[rank], bounds[-1]):
            return self._part(x, target, scale, bounds)

    def _part(self, x: Array, target: Array, scale: float, bounds: list[int]) -> tuple[Any, Any]:
        run, own, samples = self._run, sample_count(x), bounds[-1]
        in_parts = self._parts > 1 and own > 0
        if self._synchronises and any(b - a < self._parts for a, b in pairwise(bounds)):
            # Batch norms exchange sums, so all ranks call them equally often.
            in_parts = False
        # Without samples too: batch norms exchange sums, and random streams go on.
        prediction = None if in_parts else run.model.forward(x)
        share = own / samples
        if not self._counts_samples(prediction, x, target):
            # What the mean divides by is not the number of samples.
            counted = self._counted(prediction, x, target) if own else 0.0
            own_count = float(to_host(counted)) if hasattr(counted, "dtype") else counted
            (total,) = self._group.add(own_count)
            share = own_count / total if total else 0.0
        if in_parts:
            return accumulate(run.model, run.loss, (1,) * self._parts, x, target, scale * share)
        value = run.loss.forward(prediction, target)
        with released():
            run.model.backward(run.loss.backward(scale * share), input_grad=False)
        return (value, prediction) if own else (None, None)

    @contextmanager
    def _own_streams(self) -> Iterator[None]:
        """Within the block each rank draws other numbers; afterwards the random streams are at one place again.

        With ``accumulate`` a rank draws for some of its samples at a time, and ranks draw unequally often.
        """
        found = [stream for _, stream in streams(self._run.model)] if self._parts > 1 else []
        before = [stream.position for stream in found]
        for stream in found:
            stream.position += self._group.rank << _APART
        yield
        if found:
            drawn = [
                stream.position - at - (self._group.rank << _APART) for stream, at in zip(found, before, strict=True)
            ]
            most = self._group.largest(*drawn)
            for stream, at, count in zip(found, before, most, strict=True):
                stream.position = at + count

    def _counts_samples(self, prediction: Array | None, x: Array, target: Array) -> bool:
        """Whether the mean divides by a multiple of the number of samples, as the ranks found in the first step."""
        if self._by_samples is None:
            counted = self._counted(prediction, x, target) if sample_count(x) else 0.0
            self._by_samples = all(self._group.gather(isinstance(counted, float)))
        return self._by_samples

    def _counted(self, prediction: Array | None, x: Array, target: Array) -> Array | float:
        run = self._run
        if prediction is None:
            # In evaluation, where layers neither draw numbers nor keep statistics, nor need several samples.
            with no_grad(), in_mode(run.model, False):
                prediction = run.model.forward(some_samples(x, 0, 1))
        return run.loss.counted(prediction, target, none_ignored=run.none_ignored)
