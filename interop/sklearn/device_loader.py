"""Batches of inputs that are on the device already: of them the order is transferred, not the samples."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import Backend
from ...common.types import Array
from ...training.data_loader import DataLoader
from ...training.share import WHOLE, Share


class DeviceLoader(DataLoader):
    """A loader whose ``x`` is an array of the model's backend.

    Parameters
    ----------
    inputs : array
        ``(M, ...)``, in the backend's dtype.
    rows : NumPy array
        Which of the inputs are samples, ``(N,)``.
    targets : NumPy array
        ``(N, ...)``.
    batch_size, shuffle, seed
        As for `DataLoader`.
    """

    def __init__(
        self,
        inputs: Array,
        rows: NDArray[np.int64],
        targets: NDArray[Any],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
    ) -> None:
        super().__init__(rows, targets, batch_size, shuffle=shuffle, seed=seed)
        self._inputs = inputs

    def batches(self, b: Backend, start: int = 0, share: Share = WHOLE) -> Iterator[Sequence[Any]]:
        """As `DataLoader.batches`."""
        for index, target in super().batches(b, start, share):
            with b.context():
                x = b.xp.take(self._inputs, index, axis=0)
            # In exact numerics this notes that the batch is an input.
            yield b.asarray(x), target
