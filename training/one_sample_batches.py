"""Refuse batches of one sample before training begins, if the model can't be trained on them (as with batch norm)."""

import copy
import itertools
from collections.abc import Sequence

from ..backends import use_backend
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved
from .data_loader import DataLoader
from .inputs import sample_count, some_samples
from .modes import in_training, layers_in_evaluation
from .share import part_bounds


def require_no_one_sample_batch(
    model: Layer, loader: DataLoader, sizes: Sequence[int] = (1,), evaluated: Sequence[str] | None = None
) -> None:
    """Raise `ValueError` if an epoch has a batch or part of one sample and the model can't be trained on it.

    To find out, forward is called in training mode with one and with two samples; the model is left unchanged.

    Parameters
    ----------
    model : Layer
    loader : DataLoader
    sizes : sequence of int
        Relative sizes of the parts of a batch.
    evaluated : sequence of str, optional
        Full names of the layers that stay in evaluation; `layers_in_evaluation` unless given.
    """
    last = loader.samples % loader.batch_size
    batches = [loader.batch_size] if loader.samples >= loader.batch_size else []
    batches += [last] if last and not loader.drop_last else []
    single = next((n for n in batches if 1 in (b - a for a, b in itertools.pairwise(part_bounds(n, sizes)))), None)
    if single is None:
        return
    two = copy.copy(loader)
    two.batch_size, two.prefetch, two.drop_last = 2, 0, False
    x = next(iter(two.batches(model.backend)))[0]
    evaluated = layers_in_evaluation(model) if evaluated is None else evaluated
    problem = _problem(model, some_samples(x, 0, 1), evaluated)
    if problem is None or (sample_count(x) > 1 and _problem(model, x, evaluated) is not None):
        return
    where = f"{loader.samples} samples in batches of {loader.batch_size}"
    if len(sizes) > 1:
        found = f"{where}, each in {len(sizes)} parts, give parts of 1 sample; use larger batches or fewer parts"
    elif loader.samples == 1:
        found = "there is 1 sample in all; give at least 2"
    elif single == loader.batch_size:
        found = "batches of 1 sample; use a batch_size (--batch) of at least 2"
    else:
        found = (
            f"{where} leave a last batch of 1 sample; leave it out with DataLoader(drop_last=True) (--drop-last), or "
            "use another batch_size (--batch)"
        )
    raise ValueError(f"{found}; this model can't be trained on 1 sample: {problem}")


def _problem(model: Layer, x: object, evaluated: Sequence[str]) -> str | None:
    """The message of the innermost layer that refuses this batch; None if none does."""
    model.release()
    try:
        with preserved(model), use_backend(model.backend), in_training(model, evaluated):
            model.forward(x)
    except ValueError as error:
        inner: BaseException = error
        while isinstance(inner.__cause__, ValueError):
            inner = inner.__cause__
        return str(inner)
    finally:
        model.release()
    return None
