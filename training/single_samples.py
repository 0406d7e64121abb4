"""Batches of one sample, which a batch norm can't take: known before an epoch begins."""

import copy
import itertools
from collections.abc import Sequence

from ..backends import use_backend
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved
from .data_loader import DataLoader
from .evaluation import in_mode
from .shards import cuts


def require_no_single_sample(model: Layer, loader: DataLoader, sizes: Sequence[int] = (1,)) -> None:
    """Raise `ValueError` where an epoch has a batch, or a part of one, of one sample and the model can't take it.

    Only then the model is tried out, on one and on two samples in training mode, and left as it was.

    Parameters
    ----------
    model : Layer
    loader : DataLoader
    sizes : sequence of int
        Relative sizes of the parts in which a batch is taken.
    """
    last = loader.samples % loader.batch_size
    batches = [loader.batch_size] if loader.samples >= loader.batch_size else []
    batches += [last] if last and not loader.drop_last else []
    single = next((n for n in batches if 1 in (b - a for a, b in itertools.pairwise(cuts(n, sizes)))), None)
    if single is None:
        return
    two = copy.copy(loader)
    two.batch_size, two.prefetch, two.drop_last = 2, 0, False
    x = next(iter(two.batches(model.backend)))[0]
    problem = _problem(model, x[:1, ...])
    if problem is None or (x.shape[0] > 1 and _problem(model, x) is not None):
        return
    where = f"{loader.samples} samples in batches of {loader.batch_size}"
    if len(sizes) > 1:
        told = f"{where}, each in {len(sizes)} parts, give parts of 1 sample; take larger batches or fewer parts"
    elif loader.samples == 1:
        told = "there is 1 sample in all; give at least 2"
    elif single == loader.batch_size:
        told = "batches of 1 sample; take a batch_size (--batch) of at least 2"
    else:
        told = (
            f"{where} leave a last batch of 1 sample; leave it out with DataLoader(drop_last=True) (--drop-last), or "
            "take another batch_size (--batch)"
        )
    raise ValueError(f"{told}; on 1 sample this model can't be trained: {problem}")


def _problem(model: Layer, x: object) -> str | None:
    """What the innermost layer says that can't take this batch; None if all can."""
    model.release()
    try:
        with preserved(model), use_backend(model.backend), in_mode(model, True):
            model.forward(x)
    except ValueError as error:
        inner: BaseException = error
        while isinstance(inner.__cause__, ValueError):
            inner = inner.__cause__
        return str(inner)
    finally:
        model.release()
    return None
