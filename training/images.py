"""The interface of images that need not be in memory, and views that join or select them without a copy.

Augmentation, the data loader and datasets, which import each other in this order, all use this file.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = "slice | NDArray[np.integer[Any]]"

#: Bytes up to which images are joined, or decoded once, in memory.
IN_MEMORY = 1 << 30
#: Bytes of a chunk, for computations over all images.
CHUNK = 1 << 24


class Images(Protocol):
    """An array, a memory map, or another object that returns arrays when it is indexed along axis 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arrays that indexing returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


class Joined:
    """Parts one after the other, as one `Images`.

    Parameters
    ----------
    parts : sequence of Images
        All of the same dtype and size.
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return int(self._ends[-1]), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all parts."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Index) -> NDArray[Any]:
        chosen = positions(index, len(self))
        part_numbers = np.searchsorted(self._ends, chosen, side="right")
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for number in np.unique(part_numbers).tolist():
            here = part_numbers == number
            part = self.parts[number]
            found[here] = part[chosen[here] - (int(self._ends[number]) - len(part))]
        return found


class Selected:
    """Images at given positions, in this order, read when they are indexed."""

    def __init__(self, images: Images, positions: NDArray[np.integer[Any]]) -> None:
        self.images, self.positions = images, positions

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return len(self.positions), *self.images.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the images."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        return self.images[self.positions[index]]


def positions(index: Index, n: int) -> NDArray[np.integer[Any]]:
    """The positions ``0 .. n - 1`` that a slice or an integer array selects."""
    if isinstance(index, slice):
        return np.arange(*index.indices(n))
    array = np.asarray(index)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"images are indexed by a slice or an array of integers, got {index!r}")
    if len(array) and not (-n <= int(array.min()) and int(array.max()) < n):
        raise IndexError(f"index out of range for {n} images")
    return np.where(array < 0, array + n, array)


def joined(parts: Sequence[Images]) -> Images:
    """The parts as one `Images`: in memory if they are small arrays, otherwise read when indexed."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and nbytes(*parts) <= IN_MEMORY:
        return np.concatenate(arrays)
    return Joined(parts)


def selected(images: Images, chosen: NDArray[np.bool_]) -> Images:
    """The images for which ``chosen`` is true: in memory if they are a small array, otherwise read when indexed."""
    if isinstance(images, np.ndarray) and nbytes(images) <= IN_MEMORY:
        return images[chosen]
    return Selected(images, np.flatnonzero(chosen))


def nbytes(*parts: Images) -> int:
    """The size of all parts in memory, in bytes."""
    return sum(prod(part.shape) * part.dtype.itemsize for part in parts)


def chunks(images: Images) -> Iterator[NDArray[Any]]:
    """All images in order, in chunks of about `CHUNK` bytes."""
    rows = max(1, CHUNK // max(1, prod(images.shape[1:]) * images.dtype.itemsize))
    for start in range(0, len(images), rows):
        yield np.asarray(images[start : start + rows])
