"""How batches go to the device, one after another.

An uploader begins a copy on one thread (`Uploader.send`) and hands over the arrays on another (`Uploader.receive`), so
that a device that can copy while it computes does so. This one can't: it copies when it is asked for the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..common.types import Array, DType


class Door(Protocol):
    """What is asked of a backend: its one way in."""

    @property
    def dtype(self) -> DType:
        """Of floats, unless told otherwise."""

    def asarray(self, host: Any, dtype: DType | str | None = None) -> Array:
        """A host array on the device."""


class Uploader:
    """Batches for one backend.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Door) -> None:
        self._door = backend

    def send(self, parts: Sequence[np.ndarray[Any, Any]]) -> Any:
        """Begin to copy host arrays, from any thread; what it gives is for `receive` alone.

        Floats are converted to the backend's dtype. The host arrays may be overwritten once this returns, unless they
        are views of what the caller keeps.
        """
        return parts

    def receive(self, sent: Any) -> list[Array]:
        """The arrays, on the thread that computes with them; each is counted as one transfer."""
        b = self._door
        return [b.asarray(part, b.dtype if part.dtype.kind == "f" else None) for part in sent]
