"""Save and restore what a forward changes in a model: buffers, and positions of random streams."""

from __future__ import annotations

from collections.abc import Iterator

from ...backends import Generator
from ...common.types import Array
from .layer import Layer


def streams(model: Layer) -> Iterator[tuple[str, Generator]]:
    """The random streams from which forward draws, each with the full name of its layer."""
    for name, layer in model.named_layers():
        stream = getattr(layer, "stream", None)
        if isinstance(stream, Generator):
            yield name, stream


class Snapshot:
    """Buffers and positions of random streams of a model, as they are now.

    Layers replace the arrays of their buffers and never write into them, so it stores references and copies nothing. A
    compiled step (`Backend.compile`) writes into them: before one, use ``copies=True``.

    Parameters
    ----------
    model : Layer
    copies : bool
        Whether to copy the buffers.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Dropout(0.5)
    >>> before, x = Snapshot(model), model.backend.asarray([[1.0] * 8])
    >>> y = model(x)
    >>> before.restore()
    >>> bool((model(x) == y).all())
    True
    """

    def __init__(self, model: Layer, *, copies: bool = False) -> None:
        layers = [layer for _, layer in model.named_layers()]
        self._buffers = [(layer.buffers, layer.buffers.arrays(copies)) for layer in layers if layer.buffers]
        self._positions = [(stream, stream.position) for _, stream in streams(model)]

    def restore(self) -> None:
        """Restore buffers and positions; may be called several times."""
        for buffers, arrays in self._buffers:
            buffers.restore(arrays)
        for stream, position in self._positions:
            stream.position = position

    def arrays(self) -> list[Array]:
        """The buffers that exist, in the order of layers."""
        return [array for _, arrays in self._buffers for array in arrays.values() if hasattr(array, "dtype")]
