"""A model in another precision for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...backends import get_backend
from .layer import Layer


@contextmanager
def computing_in(model: Layer, precision: str | None) -> Iterator[None]:
    """Within the ``with`` block, all layers of the model compute in that precision; None changes nothing.

    Parameters, gradients and buffers stay the same float32 arrays: only the backends of the layers are replaced by ones
    that differ in their precision.

    Raises
    ------
    ValueError
        Before anything is changed, where the backend of a layer has no such precision: exact numerics, float64.
    """
    if precision is None:
        yield
        return
    # Reading `backend` determines it, except that of a container, which may be its first child's.
    found = [(layer, layer.backend, layer._backend) for _, layer in model.named_layers()]
    before = [(layer, backend) for layer, backend, own in found if own is not None]
    within = [(layer, get_backend(backend, precision=precision)) for layer, backend in before]
    try:
        for layer, backend in within:
            layer._set_backend(backend)
        yield
    finally:
        for layer, backend in before:
            layer._set_backend(backend)
