"""Batches: from arrays on the host to arrays where the model is.

The order of samples comes from the library's own generator, so it is the same on every machine and backend; batches
are put together on the host and go to the device in one transfer each.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..backends import Backend, BackendLike, Generator, get_backend
from ..backends.types import Array


class DataLoader:
    """Batches ``(x, y)`` of arrays, in a new random order each time it is iterated.

    Parameters
    ----------
    x, y : array_like
        On the host, with as many samples along axis 0. Floats are converted to the backend's dtype.
    batch_size : int
        Samples in a batch; the last batch holds what is left.
    shuffle : bool
        Whether to reorder the samples; the order of pass ``k`` depends on ``seed`` and ``k`` alone.
    seed : int
    backend : str, Backend, namespace or None
        Where batches are put; `fit` puts them where the model is.

    Attributes
    ----------
    epoch : int
        Passes begun so far. Set it to begin elsewhere.

    Raises
    ------
    ValueError
        For lengths that differ, no samples, or a batch size below 1.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        backend: BackendLike | None = None,
    ) -> None:
        self.arrays = tuple(np.asarray(array) for array in (x, y))
        lengths = [len(array) if array.ndim else 0 for array in self.arrays]
        if lengths[0] != lengths[1] or not lengths[0]:
            raise ValueError(f"x and y need the same number of samples, at least 1; got {lengths[0]} and {lengths[1]}")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size takes an integer >= 1, got {batch_size!r}")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.generator = Generator(seed).fold_in("shuffle")
        self.backend: Backend | None = None if backend is None else get_backend(backend)
        self.epoch = 0

    @property
    def samples(self) -> int:
        """Samples in one pass."""
        return len(self.arrays[0])

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Sequence[Array]]:
        return self.batches(self.backend or get_backend())

    def batches(self, b: Backend) -> Iterator[Sequence[Array]]:
        """One pass, each batch on ``b``."""
        order = None
        if self.shuffle:
            order = self.generator.fold_in(self.epoch).permutation(self.samples)
        self.epoch += 1
        for start in range(0, self.samples, self.batch_size):
            chosen = slice(start, start + self.batch_size)
            parts = (array[chosen if order is None else order[chosen]] for array in self.arrays)
            yield [b.asarray(part, b.dtype if part.dtype.kind == "f" else None) for part in parts]
