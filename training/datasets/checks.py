"""What images and labels must be, and what is said where they are not."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import Images, chunks


class DataError(ValueError):
    """Data that can't be used, with what is wrong and what would be right."""


def checked(x: NDArray[Any], y: NDArray[Any], x_name: str, y_name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images as ``(N, C, H, W)`` in their own dtype, and labels in int64.

    Raises
    ------
    DataError
        For what is neither, for lengths that differ, negative labels and values that are not finite.
    """
    if x.dtype.kind not in "uif":
        raise DataError(f"{x_name} holds {x.dtype}; images are integers or floats")
    if x.ndim not in (3, 4):
        raise DataError(f"{x_name} has shape {x.shape}; images are (N, H, W) or (N, C, H, W)")
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise DataError(f"{x_name} has shape {x.shape}, channels last it seems; transpose it to (N, C, H, W)")
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise DataError(f"{y_name} is {y.dtype} of shape {y.shape}; labels are integers of shape (N,)")
    if len(x) != len(y) or not len(x) or 0 in x.shape:
        raise DataError(f"{x_name} has shape {x.shape} and {y_name} {len(y)} labels; as many are needed, at least 1")
    if int(y.min()) < 0:
        raise DataError(f"{y_name} has label {int(y.min())}; labels run from 0 to the number of classes - 1")
    images = x if x.ndim == 4 else x.reshape(len(x), 1, *x.shape[1:])
    if x.dtype.kind == "f" and not all(np.isfinite(chunk).all() for chunk in chunks(images)):
        raise DataError(f"{x_name} has NaN or infinite values")
    return images, y.astype(np.int64)


def check_labels(y: NDArray[Any], classes: int, what: str) -> None:
    """Raise `DataError` unless all labels are below ``classes``."""
    if len(y) and int(y.max()) >= classes:
        raise DataError(f"{what} run to {int(y.max())}, out of range for {classes} classes (0 to {classes - 1})")


def largest(x: Images) -> float:
    """The largest magnitude of all values."""
    # The magnitude of the least integer of a type is not of that type.
    return max(max(abs(float(chunk.max())), abs(float(chunk.min()))) for chunk in chunks(x))


def fingerprint(*arrays: Images, floats: bool = False) -> str:
    """SHA-256 of shapes, dtypes and entries; with ``floats`` of integers as if they were float32."""
    digest = hashlib.sha256()
    for array in arrays:
        dtype = np.dtype(np.float32) if floats and len(array.shape) > 1 else array.dtype
        digest.update(repr((tuple(array.shape), dtype.str)).encode())
        for chunk in chunks(array):
            digest.update(np.ascontiguousarray(chunk, dtype).tobytes())
    return digest.hexdigest()
