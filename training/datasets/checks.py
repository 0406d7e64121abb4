"""Checks of images and labels, and the error and warning for data that fails them."""

import hashlib
import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...common.files import require_memory
from ..images import CHUNK, Images, chunks

# The largest ratio of zlib and gzip: one compressed byte becomes at most 1032.
_MOST_PACKED = 1032
# From this size on, a file that shrinks to a hundredth is refused as an attack on the memory.
_SUSPECT, _SUSPECT_RATIO = 1 << 28, 100
_LARGEST_LABEL = (1 << 31) - 1


class DataError(ValueError):
    """Data that can't be used; the message says what is wrong and what would be right."""


class Readable(Protocol):
    """A file that is read sequentially."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def warn(text: str) -> None:
    """Print a warning about the data on standard error."""
    print(f"warning: {text}", file=sys.stderr)


def decompressed(file: Readable, size: int, packed: int, what: str) -> bytearray:
    """The first ``size`` bytes of a compressed file, or fewer if it ends before; ``packed`` is its compressed size.

    Raises
    ------
    DataError
        Before anything is read, if ``size`` is more than ``packed`` bytes can hold or more than the memory, or if it is
        large and ``packed`` very small, because then nearly all bytes would be zeros.
    """
    if size > _MOST_PACKED * packed + CHUNK:
        raise DataError(f"{what} claims {size} bytes, more than {packed} compressed ones can hold; get it again")
    if size > _SUSPECT and size > _SUSPECT_RATIO * packed:
        raise DataError(
            f"{what} grows from {packed} to {size} bytes when it is unpacked, which no images do; if it is right, "
            "store it uncompressed"
        )
    try:
        require_memory(size, what)
    except ValueError as error:
        raise DataError(str(error)) from None
    found = bytearray()
    while len(found) < size and (part := file.read(min(CHUNK, size - len(found)))):
        found += part
    return found


def checked(x: NDArray[Any], y: NDArray[Any], x_name: str, y_name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images as ``(N, C, H, W)`` in their own dtype, and labels in int64.

    Raises
    ------
    DataError
        For other shapes and dtypes, lengths that differ, negative labels and values that are not finite.
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
        raise DataError(
            f"{x_name} has shape {x.shape} and {y_name} {len(y)} labels; they must be equally many, at least 1"
        )
    if int(y.min()) < 0:
        raise DataError(f"{y_name} has label {int(y.min())}; labels run from 0 to the number of classes - 1")
    if int(y.max()) > _LARGEST_LABEL:
        raise DataError(f"{y_name} has label {int(y.max())}, out of range: labels are numbers of classes from 0")
    images = x if x.ndim == 4 else x.reshape(len(x), 1, *x.shape[1:])
    if x.dtype.kind == "f" and not all(np.isfinite(chunk).all() for chunk in chunks(images)):
        raise DataError(f"{x_name} has NaN or infinite values")
    return images, y.astype(np.int64)


def check_labels(y: NDArray[Any], classes: int, what: str) -> None:
    """Raise `DataError` if a label is not below ``classes``."""
    if len(y) and int(y.max()) >= classes:
        raise DataError(f"{what} run to {int(y.max())}, out of range for {classes} classes (0 to {classes - 1})")


def largest(x: Images) -> float:
    """The largest magnitude of all values."""
    # In float, because the magnitude of an integer type's least value is not in its range.
    return max(max(abs(float(chunk.max())), abs(float(chunk.min()))) for chunk in chunks(x))


def fingerprint(*arrays: Images, floats: bool = False) -> str:
    """SHA-256 of shapes, dtypes and values; with ``floats`` images are converted to float32."""
    digest = hashlib.sha256()
    for array in arrays:
        dtype = np.dtype(np.float32) if floats and len(array.shape) > 1 else array.dtype
        digest.update(repr((tuple(array.shape), dtype.str)).encode())
        for chunk in chunks(array):
            digest.update(np.ascontiguousarray(chunk, dtype).tobytes())
    return digest.hexdigest()
