"""`evaluate` and `predict`: metrics of a model over data, and its outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from ..backends import Backend, use_backend
from ..common import checks
from ..common.types import Array
from ..distributed import Group
from ..distributed.single import alone
from ..layers.core.grad_mode import no_grad
from ..layers.core.layer import Layer
from ..layers.losses import CrossEntropy, Loss
from .consistency_checks import require_predictions, require_targets
from .data_loader import DataLoader
from .inputs import sample_count, several_inputs, some_samples
from .metrics.metric import AnyMetric, as_metrics
from .out_of_memory import out_of_memory_in_evaluation
from .ranks.evaluation import in_order
from .running_metrics import RunningMetrics, none_ignored
from .samples import samples_of
from .share import Share

Data: TypeAlias = DataLoader | tuple[Any, Any]

#: Samples in a batch if neither a loader nor the caller gives a number.
BATCH = 256


def evaluate(
    model: Layer,
    data: Data,
    *,
    loss: Loss | None = None,
    batch_size: int | None = None,
    metrics: Sequence[AnyMetric] = (),
    group: Group | None = None,
) -> dict[str, Any]:
    """Mean ``loss``, for classes ``accuracy``, and other metrics of a model over all samples; in evaluation mode.

    The loss is that of all samples in one batch, whatever the batch size: a batch is weighted by what its mean divides
    by. Targets that the loss ignores count neither in the loss nor in the accuracy. A mean over no targets is NaN.

    Parameters
    ----------
    model : Layer
    data : (x, y) or DataLoader
        Host arrays, or a loader, of which all samples are used, without the random changes of its transform
        (`DataLoader.in_order`).
    loss : Loss, optional
        A mean or a sum; `CrossEntropy` unless given.
    batch_size : int, optional
        Samples in a batch; a loader's own unless given, or else 256.
    metrics : sequence of metrics or functions
        What to measure besides, see `xpnn.metrics`. They are added up on the device, which is read once, at the end.
    group : Group, optional
        Processes that share the batches; each gets the results of all.

    Returns
    -------
    dict
        The results by name: a number each, for a confusion matrix a NumPy array.

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind or out of range, and, as in `fit`, for targets or predictions that the loss or a
        metric can't be used with.
    OutOfMemory
        If a batch does not fit; the message names one that does.
    """
    checks.instance("model", model, Layer)
    is_default_loss = loss is None
    loss = CrossEntropy() if loss is None else checks.instance("loss", loss, Loss)
    if loss.reduction == "none":
        raise ValueError(f"loss must be one with reduction='mean' or 'sum', got {loss!r}")
    loader = as_loader("data", data, None, shuffle=False).in_order(batch_size)
    require_targets(loss, loader, is_default_loss)
    measured = RunningMetrics(
        model.backend, loss, none_ignored=none_ignored(loss, loader), metrics=as_metrics(metrics, loss)
    )
    whole, parts = measured, list[RunningMetrics]()
    group = alone() if group is None else group
    share = Share(group.rank, group.size, splits=False)
    with use_backend(model.backend), in_mode(model, False), no_grad():
        for x, target in loader.batches(model.backend, share=share):
            if group.size > 1:
                measured = whole.empty()
                parts.append(measured)

            def step(n: int, x: Array = x, target: Array = target) -> tuple[Array, Array]:
                prediction = model.forward(some_samples(x, 0, n))
                return loss.forward(prediction, target[:n, ...]), prediction

            with out_of_memory_in_evaluation(model.backend, sample_count(x), step):
                prediction = model.forward(x)
                value = loss.forward(prediction, target)
            if measured.total is None:
                require_predictions(loss, prediction, loader)
            measured.add(value, prediction, target)
        loss.release()
    return (in_order(whole, parts, group) if group.size > 1 else whole).read()


def predict(model: Layer, x: Any, *, batch_size: int | None = None) -> np.ndarray[Any, Any]:
    """A model's outputs on the host, in the order of the samples, in evaluation mode.

    What the layers keep in evaluation is kept from batch to batch, and from call to call if the model is in evaluation
    mode already (``model.eval()``).

    Parameters
    ----------
    model : Layer
    x : array_like or DataLoader
        Inputs ``(N, ...)`` on the host, in memory or read batch by batch, or a loader, of which all samples are used in
        the order of its data, without the random changes of its transform (`DataLoader.in_order`). For a net with
        several inputs a tuple of arrays, each with at least two axes.
    batch_size : int, optional
        Samples in a batch; a loader's own unless given, or else 256.

    Returns
    -------
    numpy array
        ``(N, ...)``; for no samples the output for an empty batch.

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind or out of range.
    OutOfMemory
        If a batch does not fit; the message names one that does.
    """
    b = checks.instance("model", model, Layer).backend
    outputs = []
    with use_backend(b), in_mode(model, False), no_grad():
        for part in _parts(b, x, batch_size):

            def step(n: int, part: Array = part) -> Array:
                return model.forward(some_samples(part, 0, n))

            with out_of_memory_in_evaluation(b, sample_count(part), step):
                outputs.append(b.to_numpy(model.forward(part)))
    return np.concatenate(outputs)


def _parts(b: Backend, x: Any, batch_size: int | None) -> Iterator[Array]:
    """Batches of inputs in their order, at least one, which may be empty."""
    if isinstance(x, DataLoader):
        yield from (images for images, _ in x.in_order(batch_size).batches(b))
        return
    size = BATCH if batch_size is None else checks.integer("batch_size", batch_size, 1)
    many_axes = isinstance(x, tuple) and all(len(getattr(each, "shape", ())) > 1 for each in x)
    if many_axes and (inputs := several_inputs(x)) is not None:
        every = [samples_of("x", each) for each in inputs]
        for start in range(0, max(len(every[0]), 1), size):
            yield tuple(_put(b, each[start : start + size]) for each in every)
        return
    if isinstance(x, tuple) and len(x) == 2 and len({getattr(each, "shape", None) for each in x}) > 1:
        raise TypeError("x must be an array of inputs (N, ...) or a DataLoader, got a pair; give its first array only")
    x = samples_of("x", x)
    if not x.shape:
        raise ValueError("x must be an array of inputs (N, ...), got a single number")
    for start in range(0, max(len(x), 1), size):
        yield _put(b, x[start : start + size])


def _put(b: Backend, samples: Any) -> Array:
    part = np.asarray(samples)
    return b.asarray(part, b.dtype if part.dtype.kind == "f" else None)


@contextmanager
def in_mode(model: Layer, mode: bool) -> Iterator[None]:
    """The model in training or evaluation mode within the block, and in its previous modes afterwards."""
    before = {layer: layer.training for _, layer in model.named_layers()}
    model.train(mode)
    try:
        yield
    finally:
        for layer, was in before.items():
            Layer.train(layer, was)


def as_loader(name: str, data: Data, batch_size: int | None, *, shuffle: bool, seed: int = 0) -> DataLoader:
    """The loader that was given, or one over a pair of host arrays."""
    if isinstance(data, DataLoader):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        advice = ", which can be iterated only once; make a loader of arrays: nn.DataLoader(x, y)"
        hint = advice if isinstance(data, Iterator) else ""
        kind = f"{len(data)} arrays" if isinstance(data, tuple | list) else checks.shown(data)
        raise ValueError(f"{name} must be a pair (x, y) or a DataLoader, got {kind}{hint}")
    return DataLoader(data[0], data[1], BATCH if batch_size is None else batch_size, shuffle=shuffle, seed=seed)
