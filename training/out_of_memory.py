"""When a batch does not fit into memory: which one does."""

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
from .shards import take


class OutOfMemory(MemoryError):
    """A step's batch does not fit into the device's memory; the message says which one does, and what to do.

    Parameters
    ----------
    batch : int
        Samples that did not fit.
    fits : int
        Samples that do; 0 where not even one does.
    where : str
        The device.
    evaluating : bool
        Whether it was a batch of `evaluate` or `predict`, of which nothing is kept for a backward pass.
    """

    def __init__(self, batch: int, fits: int, where: str, evaluating: bool = False) -> None:
        super().__init__(batch, fits, where, evaluating)
        self.batch, self.fits, self.where, self.evaluating = batch, fits, where, evaluating

    def __str__(self) -> str:
        if self.evaluating:
            told = f"batch of {self.batch} does not fit in the memory of {self.where} in evaluation"
            if not self.fits:
                return f"{told}, nor does one sample: take smaller inputs or a smaller model"
            return (
                f"{told}; a batch of {self.fits} does: batch_size={self.fits} of evaluate, predict, or the loader that "
                "is evaluated"
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
    """What to raise for a step on a batch that failed with ``error``, of which `Backend.is_out_of_memory` is true.

    Lets go of the failed step's arrays first: those that the frames of ``error`` hold, those kept for backward, and the
    gradients, of which a part may be the failed step's. Then tries smaller batches.
    """
    where = place(model.backend)
    _drop_frames(error)
    return OutOfMemory(int(x.shape[0]), largest_batch(model, loss, x, target), where)


@contextmanager
def room_to_evaluate(b: Backend, samples: int, step: Callable[[int], object]) -> Iterator[None]:
    """Around the evaluation of a batch on ``b``: `OutOfMemory` instead of the library's error.

    ``step`` is called with smaller and smaller numbers of samples and does with the first so many of the batch what is
    done within the block. Gradients and what is kept for backward stay as they are.
    """
    try:
        yield
    except Exception as error:
        if not b.is_out_of_memory(error):
            raise
        where = place(b)
        _drop_frames(error)
    else:
        return
    fits = 0
    for size in halves(samples):
        _collect(b)
        if _works(b, partial(step, size)):
            fits = size
            break
    _collect(b)
    raise OutOfMemory(samples, fits, where, evaluating=True)


def _drop_frames(error: BaseException) -> None:
    """Let go of the arrays that the frames of an error hold."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def largest_batch(model: Layer, loss: Loss, x: Array, target: Array, sizes: Sequence[int] | None = None) -> int:
    """The first of some sizes for which forward and backward fit into memory; 0 where none does.

    Each try takes the first samples of the batch. Buffers, modes and random streams are left as they were; gradients
    and what was kept for backward are dropped. An optimizer's step may need more than was tried, for its state at the
    first step.

    Parameters
    ----------
    model : Layer
    loss : Loss
    x, target : array
        The batch, on the model's backend.
    sizes : sequence of int, optional
        Samples, in the order of trying; half the batch, a quarter, and so on down to 1 unless given.
    """
    for size in halves(int(x.shape[0])) if sizes is None else sizes:
        _let_go(model, loss)
        try:
            if _fits(model, loss, x[:size, ...], target[:size, ...]):
                return size
        except ValueError:
            # A batch norm takes no single value: then one sample is no batch, and that is not what went wrong.
            if size > 1:
                raise
    _let_go(model, loss)
    return 0


def halves(samples: int) -> list[int]:
    """Half of it, a quarter, ... down to 1."""
    return [samples >> k for k in range(1, samples.bit_length())]


def _fits(model: Layer, loss: Loss, x: Array, target: Array) -> bool:
    def step() -> None:
        with preserved(model), use_backend(model.backend):
            take(model, loss, x, target)

    return _works(model.backend, step)


def _works(b: Backend, step: Callable[[], object]) -> bool:
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


def _let_go(model: Layer, loss: Loss) -> None:
    model.zero_grad()
    model.release()
    loss.release()
    _collect(model.backend)


def _collect(b: Backend) -> None:
    # An error and the frames that it passed hold each other, and their arrays.
    gc.collect()
    b.free_memory()


def place(b: Backend) -> str:
    """A device with its memory: ``cupy:0 (80 GB, 78 in use)``."""
    total, used = b.capacity()
    return f"{b.spec} ({gigabytes(total)} GB, {gigabytes(used)} in use)" if total else b.spec


def gigabytes(size: int) -> str:
    """Three digits at most: ``80``, ``7.9``, ``0.31``."""
    found = size * 1e-9
    return f"{found:.0f}" if found >= 10 else f"{found:.2g}"
