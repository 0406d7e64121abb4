"""Buffers, such as running statistics: in fast numerics those of each rank come from its own samples."""

from ...distributed import Group
from ...layers.core.layer import Layer


def share_buffers(model: Layer, group: Group) -> None:
    """Replace the buffers of all ranks by those of rank 0, which checkpoints have; called by all."""
    if group.size == 1:
        return
    for _, layer in model.named_layers():
        if layer.backend.numerics == "fast":
            for name in list(layer.buffers):
                layer.set_buffer(name, group.broadcast(layer.buffers[name]))
