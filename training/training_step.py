"""One training step: gradients of a batch, checks of the loss, clipping, update of the parameters.

It reads one number from the device, the loss, and none with ``on_nan=None``; in float16 another one, whether the
gradients are finite.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from math import isfinite
from typing import Any, Self

from ..common.types import Array
from ..layers.core.layer import Layer
from ..layers.losses import Loss
from .compiled_training import CompiledPart, compiles
from .consistency_checks import require_predictions
from .gradients import BatchGradients, accumulate, forward_backward, parts_have_bits_of_whole
from .inputs import as_arguments, from_arguments, sample_count
from .nan_check import NonFiniteError, Snapshot, locate, uses_only_library_code
from .optimizers import clip_grad_norm, clip_grad_value
from .out_of_memory import out_of_memory
from .ranks.gradients import GroupGradients
from .ranks.nan_check import locate_in_group
from .run import Run
from .schedules.base import TimedSchedule
from .shards import Shards

# A run that skips every batch learns nothing and would never end.
MOST_SKIPPED = 20
# Seconds for which other ranks wait for one that looks for a batch that fits, beside the timeout of the group.
SEARCHING = 600.0


class TrainingStep:
    """The step of a run; use as a context manager, which starts and ends threads for parts of a batch.

    Parameters
    ----------
    run : Run
    note : callable
        Called with a line for the user when a batch is skipped.

    Attributes
    ----------
    gradients : BatchGradients
        What computes the gradients of a batch, within the context.
    """

    def __init__(self, run: Run, note: Callable[[str], None]) -> None:
        self._run, self._note, self._on_nan = run, note, run.options.on_nan
        self._schedule_counts_steps = run.options.schedule_each == "step"
        self._predictions_are_checked = False
        checks = self._on_nan is not None or run.scaler is not None
        self._hides_warnings = checks and uses_only_library_code(run.model, run.loss, run.optimizer)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        run, parts = self._run, self._run.options.accumulate
        self._compiles = compiles(run)
        self.gradients: BatchGradients
        if run.group.size > 1:
            self.gradients = GroupGradients(run)
        elif parts > 1:
            self.gradients = partial(accumulate, run.model, run.loss, (1,) * parts)
        else:
            self.gradients = self._opened.enter_context(batch_gradients(run.model, run.loss, run.sizes))
        # With a check of the loss in between, the two halves are compiled separately.
        halves = (self._step_unchecked, self._new_gradients, self._update)
        self._whole, self._first, self._second = [self._compiled(function) for function in halves]
        return self

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self._compiles:
            return function
        run = self._run
        return CompiledPart(
            function, run.model.backend, (run.model, run.optimizer), run.options.compile is True, self._note
        )

    def __exit__(self, *raised: object) -> None:
        self._opened.close()

    def __call__(self, x: Array, target: Array) -> None:
        """Take one step on a batch."""
        with self.without_warnings():
            self._take(x, target)

    def without_warnings(self) -> AbstractContextManager[None]:
        """Hide NumPy's warnings of NaN and infinity where `NonFiniteError` reports them."""
        return self._run.model.backend.unwarned() if self._hides_warnings else nullcontext()

    def _take(self, x: Array, target: Array) -> None:
        run, model, b = self._run, self._run.model, self._run.model.backend
        # A batch that is not full, the last of an epoch, would need a recording of its own.
        compiled = self._compiles and sample_count(x) == run.loader.batch_size
        unchecked = self._on_nan is None and self._predictions_are_checked and run.scaler is None
        before = None if unchecked else Snapshot(model, copies=compiled)
        first, second = (self._first, self._second) if compiled else (self._new_gradients, self._update)
        if unchecked:
            first = self._whole if compiled else self._step_unchecked
        try:
            value, prediction = first(*as_arguments(x, target))
        except Exception as error:
            if b.is_out_of_memory(error):
                with run.group.allowing(SEARCHING):
                    raise out_of_memory(error, model, run.loss, x, target) from None
            raise
        # A rank without samples has no loss.
        is_empty = prediction is None
        if before is not None and not self._predictions_are_checked and not is_empty:
            self._check_predictions(prediction, target, before)
        if before is not None and self._on_nan is not None:
            value = 0.0 if is_empty else float(b.to_numpy(value))
            is_bad = not isfinite(value) and self._any_counts(prediction, target)
            if run.group.agree(is_bad)[0]:
                before.restore()
                self._stop_or_skip(value, is_bad, x, target)
                return
            value = value if isfinite(value) else 0.0
            run.skipped_in_a_row = 0
        if not unchecked and second() is False:
            assert before is not None
            self._leave_out(before, x, target)
            if not is_empty:
                run.metrics.add(value, prediction, target)
            return
        if run.options.ema is not None:
            run.options.ema.update()
        if self._schedule_counts_steps and isinstance(run.schedule, TimedSchedule):
            run.schedule.step()
        if not is_empty:
            run.metrics.add(value, prediction, target)

    def _step_unchecked(self, *arrays: Array) -> tuple[Array, Array]:
        """A whole step, if nothing is checked within it; inputs and targets are arguments of their own."""
        found = self._new_gradients(*arrays)
        self._update()
        return found

    def _new_gradients(self, *arrays: Array) -> tuple[Array, Array]:
        """Loss and predictions of a batch, after its gradients have replaced those before."""
        run = self._run
        run.optimizer.zero_grad()
        if run.scaler is None:
            return self.gradients(*from_arguments(arrays))
        return self.gradients(*from_arguments(arrays), scale=run.scaler.get_scale())

    def _update(self) -> bool | None:
        """Clip the gradients, and update the parameters; returns False if infinite gradients of float16 prevent it."""
        run = self._run
        if run.scaler is not None:
            run.scaler.unscale_(run.optimizer)
        if run.options.clip_norm is not None:
            clip_grad_norm(run.optimizer.parameters, run.options.clip_norm)
        if run.options.clip_value is not None:
            clip_grad_value(run.optimizer.parameters, run.options.clip_value)
        if run.scaler is None:
            run.optimizer.step()
            return None
        taken = run.scaler.step(run.optimizer)
        run.scaler.update()
        return taken

    def _leave_out(self, before: Snapshot, x: Array, target: Array) -> None:
        """Leave the model as it was before a step whose gradients are not finite at this scale of the loss."""
        run = self._run
        before.restore()
        run.optimizer.zero_grad()
        assert run.scaler is not None
        if run.scaler.skipped_in_a_row >= MOST_SKIPPED and run.scaler.get_scale() < 1.0:
            # Not the scale makes them infinite.
            raise NonFiniteError(run.steps + 1, run.epoch, locate(run.model, run.loss, x, target))

    def _check_predictions(self, prediction: Array, target: Array, before: Snapshot) -> None:
        """Refuse a run whose first predictions the loss or a metric can't use, and leave the model as it was."""
        try:
            require_predictions(self._run.loss, prediction, self._run.loader)
            self._run.metrics.check(prediction, target)
        except ValueError:
            before.restore()
            self._run.optimizer.zero_grad()
            raise
        self._predictions_are_checked = True

    def _any_counts(self, prediction: Array, target: Array) -> bool:
        """Whether any target of the batch counts. If none does, the mean is NaN, its gradient 0."""
        run = self._run
        counted = run.loss.counted(prediction, target, none_ignored=run.none_ignored)
        return bool((counted if isinstance(counted, float) else float(run.model.backend.to_numpy(counted))) != 0.0)

    def _stop_or_skip(self, value: float, is_bad: bool, x: Array, target: Array) -> None:
        """Raise `NonFiniteError`, or skip the batch; all ranks do, and ``is_bad`` is of this one."""
        run = self._run
        run.optimizer.zero_grad()
        run.skipped += 1
        run.skipped_in_a_row += 1
        if self._on_nan == "stop" or run.skipped_in_a_row >= MOST_SKIPPED:
            found = locate_in_group(run.group, is_bad, run.model, run.loss, x, target)
            raise NonFiniteError(run.steps + 1, run.epoch, found)
        self._note(f"epoch {run.epoch}, step {run.steps + 1}: the loss is {value}; batch skipped")


@contextmanager
def batch_gradients(model: Layer, loss: Loss, sizes: list[int]) -> Iterator[BatchGradients]:
    """The function that computes a batch in parts of these relative sizes: whole, on threads, or one after another."""
    if len(sizes) == 1:
        yield partial(forward_backward, model, loss)
    elif parts_have_bits_of_whole(model, loss):
        with Shards(model, loss, sizes) as shards:
            yield shards.forward_backward
    else:
        # If a layer or the loss computed in fast numerics, each thread would have sums of its own.
        yield partial(accumulate, model, loss, sizes)
