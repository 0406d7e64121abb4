"""Statistics of batch norms over the samples of all ranks."""

from ..layers.core.layer import Layer
from ..layers.normalisation.batch_norm import BatchNorm
from .group import Group


def synchronise_batch_norms(model: Layer, group: Group | None) -> None:
    """Let all batch norms of a model use the samples of all ranks, or with None those of their own rank again."""
    for _, layer in model.named_layers():
        if isinstance(layer, BatchNorm):
            layer.group = group
