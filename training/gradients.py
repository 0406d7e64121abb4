"""Forward and backward of a batch, whole or part by part: add to the gradients, return loss and predictions.

`xpnn.training.shards` has a third way, parts on threads, for exact numerics.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from functools import reduce
from math import nan
from typing import TypeAlias

from ..backends.execution.blocks import concat_all
from ..common import checks
from ..common.types import Array
from ..layers.core.layer import Layer
from ..layers.core.release_after_backward import released
from ..layers.losses import Loss
from .inputs import sample_count, some_samples
from .share import part_bounds

#: The most parts of a step; no batch has as many samples.
MOST_PARTS = 1_000_000

#: A function of a batch and its target that adds to a model's gradients and returns the loss and the predictions. Those
#: for fast numerics accept a ``scale``, by which gradients are multiplied.
BatchGradients: TypeAlias = Callable[..., tuple[Array, Array]]


def forward_backward(model: Layer, loss: Loss, x: Array, target: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """Forward and backward of the whole batch."""
    prediction = model.forward(x)
    value = loss.forward(prediction, target)
    with released():
        model.backward(loss.backward(scale), input_grad=False)
    return value, prediction


def accumulate(
    model: Layer, loss: Loss, sizes: Sequence[int], x: Array, target: Array, scale: float = 1.0
) -> tuple[Array, Array]:
    """Forward and backward of one part of the batch after another.

    The loss is the sum over all parts, divided by the same number as the mean over the whole batch.

    Parameters
    ----------
    model : Layer
    loss : Loss
        A mean.
    sizes : sequence of int
        Relative sizes of the parts.
    x, target : array
    scale : float
        A factor of the gradients.
    """
    backend, terms, values, predictions = model.backend, None, [], []
    xp = backend.xp
    summed = copy.copy(loss)
    summed.reduction = "sum"
    for a, b in itertools.pairwise(part_bounds(sample_count(x), sizes)):
        if a == b:
            continue
        prediction = model.forward(some_samples(x, a, b))
        values.append(summed.forward(prediction, target[a:b, ...]))
        if terms is None:
            terms = loss.terms(prediction, target)
            # If no target counts, the mean is NaN and its gradient 0.
            with backend.context():
                nothing = terms == 0.0
                slope = scale / xp.where(nothing, xp.ones_like(terms), terms)
                terms = xp.where(nothing, xp.full_like(terms, nan), terms)
        with released():
            model.backward(summed.backward(slope), input_grad=False)
        predictions.append(prediction)
    with backend.context():
        return reduce(lambda a, b: a + b, values) / terms, concat_all(predictions, 0, xp)


def part_sizes(shards: int | Sequence[int]) -> list[int]:
    """Relative sizes of the parts; `ValueError` unless ``shards`` is an integer >= 1 or a sequence of them."""
    if checks.is_integer(shards) and shards >= 1:
        return [1] * checks.integer("shards", shards, 1, MOST_PARTS)
    return list(checks.shape("shards", shards, 1, "an integer >= 1, or a sequence of them"))


def parts_have_bits_of_whole(model: Layer, loss: Loss) -> bool:
    """Whether a step in parts has the bits of a step on the whole batch: only if all layers and the loss are exact."""
    own = model.backend if loss.follows else loss.backend
    backends = (own, *(layer.backend for _, layer in model.named_layers()))
    return all(b is not None and b.numerics == "exact" for b in backends)
