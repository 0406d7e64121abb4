"""IDX, the file format of MNIST and similar datasets: a header, then the entries, all big-endian.

The header has two zero bytes, a byte for the type, a byte for the number of dimensions, and four bytes for each size.

References
----------
Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .checks import DataError, decompressed
from .dataset import Dataset, from_arrays

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 4
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def is_idx(folder: Path) -> bool:
    """Whether a folder has one of MNIST's files."""
    return any(find_idx(folder, name) for name in (*TRAIN, *TEST))


def load_idx(folder: Path, classes: int | None = None) -> Dataset:
    """The training files of a folder, and the ``t10k`` files, if they exist, as the held-out part."""
    pairs = [[find_idx(folder, name) for name in names] for names in (TRAIN, TEST)]
    wanted = [*TRAIN, *(TEST if any(pairs[1]) else ())]
    if missing := [name for name, path in zip(wanted, (*pairs[0], *pairs[1]), strict=False) if path is None]:
        raise DataError(f"{folder} has no {' and no '.join(missing)} (or the same with .gz)")
    (x, y), *test = ([read_idx(path) for path in pair if path] for pair in pairs if any(pair))
    try:
        return from_arrays(folder.name, x, y, (test[0][0], test[0][1]) if test else None, classes=classes, stored=True)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an IDX file: memory-mapped, or read if the file name ends in ``.gz``.

    Raises
    ------
    DataError
        For another format, a type that IDX does not define, and a length that differs from the header's, which is
        checked before the entries are read.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                dtype, shape = _header(packed, path)
                size = prod(shape) * dtype.itemsize
                data = decompressed(packed, size, path.stat().st_size, str(path))
                _check_length(path, shape, dtype, size, None if packed.read(1) else len(data))
            return np.frombuffer(data, dtype).reshape(shape)
        with path.open("rb") as plain:
            dtype, shape = _header(plain, path)
            start = plain.tell()
        size = prod(shape) * dtype.itemsize
        _check_length(path, shape, dtype, size, path.stat().st_size - start)
        return np.asarray(np.memmap(path, dtype, "r", start, shape))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}); is it complete?") from None


def _header(file: BinaryIO | gzip.GzipFile, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path} is no IDX file: it begins with {magic.hex(' ') or 'nothing'}, not with 00 00")
    if magic[2] not in TYPES:
        codes = ", ".join(f"{code:02x}" for code in TYPES)
        raise DataError(f"{path} has IDX type code {magic[2]:02x}; the codes are {codes}")
    sizes = file.read(4 * magic[3])
    if not magic[3] or len(sizes) < 4 * magic[3]:
        raise DataError(f"{path} ends within its header, or has no dimensions")
    if magic[3] > _MOST_DIMENSIONS:
        raise DataError(f"{path} has {magic[3]} dimensions; images have 3 or 4, labels 1")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DataError(f"{path} should hold {' x '.join(map(str, shape))} entries, which is none")
    return np.dtype(TYPES[magic[2]]), shape


def _check_length(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], size: int, found: int | None) -> None:
    if found != size:
        has = "more" if found is None else f"{found}"
        raise DataError(
            f"{path} should hold {' x '.join(map(str, shape))} entries of {dtype.itemsize} byte(s), {size} bytes, "
            f"and has {has}; get it again"
        )


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of that name, or with ``.idx`` instead of ``-idx``; uncompressed files are preferred to ``.gz``."""
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / f"{spelling}{ending}" for ending in ("", ".gz") for spelling in spellings)
    return next((path for path in paths if path.is_file()), None)
