"""`OutOfMemory`: names a batch size that fits, found by trying, when a batch does not fit into memory."""

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..backends import Backend, use_backend
from ..common.types import Array
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved
from ..layers.losses import Loss
from .gradients import forward_backward
from .inputs import sample_count, some_samples


class OutOfMemory(MemoryError):
    """A batch does not fit into the device's memory; the message names one that does, and what to do.

    Parameters
    ----------
    batch : int
        Samples that did not fit.
    fits : int
        Samples that do; 0 if not even one does.
    where : str
        The device and its memory, as `device_memory` describes them.
    evaluating : bool
        Whether it was a batch of `evaluate` or `predict`, which save nothing for backward.
    """

    def __init__(self, batch: int, fits: int, where: str, evaluating: bool = False) -> None:
        super().__init__(batch, fits, where, evaluating)
        self.batch, self.fits, self.where, self.evaluating = batch, fits, where, evaluating

    def __str__(self) -> str:
        if self.evaluating:
            problem = f"batch of {self.batch} does not fit in the memory of {self.where} in evaluation"
            if not self.fits:
                return f"{problem}, nor does one sample: take smaller inputs or a smaller model"
            return (
                f"{problem}; a batch of {self.fits} does: batch_size={self.fits} of evaluate, predict, or the loader "
                "that is evaluated"
            )
        if not self.fits:
            return (
                f"batch of {self.batch} does not fit in the memory of {self.where}, nor does one sample: take smaller "
                "inputs, a smaller model, or Checkpointed(...) around its stages"
            )
        parts = -(-self.batch // self.fits)
        return (
            f"batch of {self.batch} does not fit in the memory of {self.where}; a batch of {self.fits} does: "
            f"--batch {self.fits}, or --accumulate {parts} / accumulate={parts} to keep the same steps; "
            "Checkpointed(...) needs less"
        )


def out_of_memory(error: BaseException, model: Layer, loss: Loss, x: Array, target: Array) -> OutOfMemory:
    """What to raise after a training step failed with ``error``, for which `Backend.is_out_of_memory` is true.

    First frees the arrays of the failed step: those in the frames of ``error``, those saved for backward, and the
    gradients, which it may have changed. Then tries smaller batches.
    """
    where = device_memory(model.backend)
    _clear_frames(error)
    return OutOfMemory(sample_count(x), largest_batch(model, loss, x, target), where)


@contextmanager
def out_of_memory_in_evaluation(b: Backend, samples: int, step: Callable[[int], object]) -> Iterator[None]:
    """Raise `OutOfMemory` in place of the library's error, in a block that evaluates a batch.

    Gradients and what is saved for backward stay as they are.

    Parameters
    ----------
    b : Backend
    samples : int
        Of the batch.
    step : callable
        Does with the first ``n`` samples what the block does with all; called with smaller and smaller ``n``.
    """
    try:
        yield
    except Exception as error:
        if not b.is_out_of_memory(error):
            raise
        where = device_memory(b)
        _clear_frames(error)
    else:
        return
    fits = 0
    for size in halves(samples):
        _collect(b)
        if _fits(b, partial(step, size)):
            fits = size
            break
    _collect(b)
    raise OutOfMemory(samples, fits, where, evaluating=True)


def _clear_frames(error: BaseException) -> None:
    """Free the arrays in the frames of an error."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def largest_batch(model: Layer, loss: Loss, x: Array, target: Array, sizes: Sequence[int] | None = None) -> int:
    """The first of several sizes for which forward and backward fit into memory; 0 if none does.

    Each try uses the first samples of the batch. Buffers, modes and random streams stay as they were; gradients and
    what was saved for backward are freed. An optimizer's first step may need more memory than was tried, for its
    state.

    Parameters
    ----------
    model : Layer
    loss : Loss
    x, target : array
        The batch, on the model's backend.
    sizes : sequence of int, optional
        Numbers of samples in the order of trying; half the batch, a quarter, and so on down to 1 unless given.
    """
    for size in halves(sample_count(x)) if sizes is None else sizes:
        _free(model, loss)
        try:
            if _step_fits(model, loss, some_samples(x, 0, size), target[:size, ...]):
                return size
        except ValueError:
            # A batch norm can't be trained on one value for each channel, which has nothing to do with memory.
            if size > 1:
                raise
    _free(model, loss)
    return 0


def halves(samples: int) -> list[int]:
    """Half of it, a quarter, ... down to 1."""
    return [samples >> k for k in range(1, samples.bit_length())]


def _step_fits(model: Layer, loss: Loss, x: Array, target: Array) -> bool:
    def step() -> None:
        with preserved(model), use_backend(model.backend):
            forward_backward(model, loss, x, target)

    return _fits(model.backend, step)


def _fits(b: Backend, step: Callable[[], object]) -> bool:
    """Whether a step does not run out of memory."""
    try:
        step()
        b.synchronize()
    except Exception as error:
        if not b.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True


def _free(model: Layer, loss: Loss) -> None:
    model.zero_grad()
    model.release()
    loss.release()
    _collect(model.backend)


def _collect(b: Backend) -> None:
    # An error and its frames form a cycle, which keeps their arrays until it is collected.
    gc.collect()
    b.free_memory()


def device_memory(b: Backend) -> str:
    """The device and its memory: ``cupy:0 (80 GB, 78 in use)``."""
    total, used = b.capacity()
    return f"{b.spec} ({gigabytes(total)} GB, {gigabytes(used)} in use)" if total else b.spec


def gigabytes(size: int) -> str:
    """Bytes in GB with at most two digits after the point: ``80``, ``7.9``, ``0.31``."""
    found = size * 1e-9
    return f"{found:.0f}" if found >= 10 else f"{found:.2g}"
