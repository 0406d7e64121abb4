"""Where the first NaN or infinity was in a step of several processes."""

from dataclasses import replace

from ...common.types import Array
from ...distributed import Group
from ...layers.core.layer import Layer
from ...layers.losses import Loss
from ...layers.normalisation.batch_norm import BatchNorm
from ..inputs import sample_count
from ..nan_check import PASSING, Finding, locate

#: Seconds for which ranks wait for one that computes its part once more, beside the timeout of the group.
LOCATING = 600.0


def locate_in_group(group: Group, is_bad: bool, model: Layer, loss: Loss, x: Array, target: Array) -> Finding:
    """What the first rank finds in its own samples, on all ranks; called by all.

    Parameters
    ----------
    group : Group
    is_bad : bool
        Whether the loss of this rank is not finite; it then computes its part by itself.
    model, loss, x, target
        Those of `locate`.
    """
    if group.size == 1:
        return locate(model, loss, x, target)
    with group.allowing(LOCATING):
        own = _locate_alone(model, loss, x, target) if is_bad and sample_count(x) else None
    every: list[tuple[int, Finding]] = [(rank, each) for rank, each in enumerate(group.gather(own)) if each is not None]
    if not every:
        return Finding("", "no rank finds it in its own samples", PASSING)
    rank, found = next(((rank, each) for rank, each in every if each.advice != PASSING), every[0])
    return replace(found, what=f"rank {rank}: {found.what}")


def _locate_alone(model: Layer, loss: Loss, x: Array, target: Array) -> Finding | None:
    """`locate`, in which no batch norm waits for other ranks."""
    norms = [layer for _, layer in model.named_layers() if isinstance(layer, BatchNorm)]
    groups = [layer.group for layer in norms]
    try:
        for layer in norms:
            layer.group = None
        return locate(model, loss, x, target)
    except ValueError:
        # A batch norm has too few samples in this part.
        return None
    finally:
        for layer, group in zip(norms, groups, strict=True):
            layer.group = group
