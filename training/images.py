"""Images that need not be in memory: what is asked of them, and views that join or select without a copy."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = "slice | NDArray[np.integer[Any]]"

#: Bytes up to which images are put together, or decoded once, in memory.
IN_MEMORY = 1 << 30
#: Bytes looked at a time where all images are gone through.
CHUNK = 1 << 24


class Images(Protocol):
    """What images are to whoever reads them: an array, a memory map, or anything that gives arrays when indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what indexing gives."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


class Joined:
    """Images one part after the other.

    Parameters
    ----------
    parts : sequence of Images
        Of one dtype and size.
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
        """Of all parts."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Index) -> NDArray[Any]:
        places = positions(index, len(self))
        owners = np.searchsorted(self._ends, places, side="right")
        found = np.empty((len(places), *self.shape[1:]), self.dtype)
        for owner in np.unique(owners).tolist():
            chosen = owners == owner
            part = self.parts[owner]
            found[chosen] = part[places[chosen] - (int(self._ends[owner]) - len(part))]
        return found


class Selected:
    """Some of the images, in a given order, read when they are asked for."""

    def __init__(self, images: Images, places: NDArray[np.integer[Any]]) -> None:
        self.images, self.places = images, places

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return len(self.places), *self.images.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the images."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        return self.images[self.places[index]]


def positions(index: Index, n: int) -> NDArray[np.integer[Any]]:
    """The places ``0 .. n - 1`` that a slice or an integer array names."""
    if isinstance(index, slice):
        return np.arange(*index.indices(n))
    places = np.asarray(index)
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise TypeError(f"images are indexed by a slice or an array of integers, got {index!r}")
    if len(places) and not (-n <= int(places.min()) and int(places.max()) < n):
        raise IndexError(f"index out of range for {n} images")
    return np.where(places < 0, places + n, places)


def joined(parts: Sequence[Images]) -> Images:
    """The parts as one: in memory where that is small, otherwise read when asked for."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and nbytes(*parts) <= IN_MEMORY:
        return np.concatenate(arrays)
    return Joined(parts)


def selected(images: Images, chosen: NDArray[np.bool_]) -> Images:
    """Those images for which ``chosen`` is true: in memory where that is small, otherwise read when asked for."""
    if isinstance(images, np.ndarray) and nbytes(images) <= IN_MEMORY:
        return images[chosen]
    return Selected(images, np.flatnonzero(chosen))


def nbytes(*parts: Images) -> int:
    """Bytes of all of them in memory."""
    return sum(prod(part.shape) * part.dtype.itemsize for part in parts)


def chunks(images: Images) -> Iterator[NDArray[Any]]:
    """All images in order, so many at a time that they take little memory."""
    rows = max(1, CHUNK // max(1, prod(images.shape[1:]) * images.dtype.itemsize))
    for start in range(0, len(images), rows):
        yield np.asarray(images[start : start + rows])
