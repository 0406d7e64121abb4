"""Samples on the host, along axis 0: arrays, or objects from which batches are read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj
from numpy.typing import NDArray

from ..backends.inputs import host_data, is_sparse
from ..common import checks
from .images import Images


def samples_of(name: str, data: Any) -> Images:
    """The samples of an argument ``name``: data that `is_lazy` is returned unchanged, anything else as an array.

    Raises
    ------
    TypeError
        For an iterator, text, subclasses of arrays and other objects that hold no numbers.
    """
    if is_lazy(data):
        return data  # type: ignore[no-any-return]  # is_lazy checks for what Images requires
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} must be an array of samples, got {checks.shown(data)}, which can be iterated only once; make an "
            f"array of it: np.stack(list({name}))"
        )
    return host_data(data, name, convert=True)


def is_lazy(data: Any) -> bool:
    """Whether batches are read from data by indexing: it has a shape, a dtype and a length and is no array."""
    if isinstance(data, np.ndarray | np.generic) or is_array_api_obj(data) or is_sparse(data):
        return False
    indexable = all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__", "__len__"))
    # Objects of pandas are indexed by labels, not by position.
    return indexable and not hasattr(data, "iloc")


def take_samples(data: Images, index: Any) -> NDArray[Any]:
    """The samples at a slice, or at positions in any order."""
    if isinstance(data, np.ndarray):
        samples: NDArray[Any] = data[index]
        return samples
    if isinstance(index, slice):
        return host_data(data[index], "the result of indexing the data with a slice", convert=True)
    # Increasing positions read a file from front to back; h5py accepts no other order.
    order = np.argsort(index)
    found = host_data(data[index[order]], "the result of indexing the data with positions", convert=True)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return found[back]
