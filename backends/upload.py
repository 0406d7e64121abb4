"""Transfer of batches to the device, one after another.

An uploader begins a copy on one thread (`Uploader.send`) and returns the arrays on another (`Uploader.receive`), so
that a device can copy while it computes. This one does not: it copies in `receive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..common.types import Array, DType


class Destination(Protocol):
    """The part of a `Backend` that an uploader needs."""

    @property
    def dtype(self) -> DType:
        """The default floating dtype."""

    def asarray(self, host: Any, dtype: DType | str | None = None) -> Array:
        """A host array on the device."""


class Uploader:
    """Batches for one backend.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Destination) -> None:
        self._destination = backend

    def send(self, parts: Sequence[np.ndarray[Any, Any]]) -> Any:
        """Begin to copy host arrays, from any thread; returns the argument of `receive`.

        Floats are converted to the backend's dtype. The host arrays may be reused as soon as this returns, unless they
        are views of arrays that the caller keeps.
        """
        return parts

    def receive(self, sent: Any) -> list[Array]:
        """The arrays, on the thread that computes with them; each is counted as one transfer."""
        b = self._destination
        return [b.asarray(part, b.dtype if part.dtype.kind == "f" else None) for part in sent]
