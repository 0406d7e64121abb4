"""Datasets in NumPy's ``.npz`` archives; nothing is unpickled.

Before any data is read, the length of the header, the size that follows from the shape, the size in the archive's
directory and the number of compressed bytes are checked against each other.
"""

import ast
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import DataError, decompressed
from .dataset import Dataset, from_arrays

NAMES = ("x", "y", "x_train", "y_train", "x_valid", "y_valid", "x_val", "y_val", "x_test", "y_test", "class_names")
# The header of an array of numbers has 54 or 118 bytes.
_LONGEST_HEADER = 1024
# The format of the header's length, by version; version 3 is only for names of fields.
_LENGTHS = {1: "<H", 2: "<I"}


def load_npz(path: Path, classes: int | None = None) -> Dataset:
    """A dataset of the arrays ``x``, ``y`` and, if present, others of `NAMES` in an ``.npz`` file.

    As in Keras's ``mnist.npz``, those for training may be called ``x_train`` and ``y_train``.
    """
    arrays, names = read_npz(path, NAMES)
    for name in ("x", "y"):
        if name in arrays and f"{name}_train" in arrays:
            raise DataError(f"{path} has both {name} and {name}_train; keep one")
        if f"{name}_train" in arrays:
            arrays[name] = arrays.pop(f"{name}_train")
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(f"{path} has no array {' and no '.join(missing)}; it holds {_listed(names)}")
    valid, val, test = (_pair(path, arrays, ending) for ending in ("_valid", "_val", "_test"))
    if valid and val:
        raise DataError(f"{path} has both x_valid and x_val; keep one")
    valid = valid or val
    class_names = _class_names(path, arrays["class_names"]) if "class_names" in arrays else None
    return from_arrays(
        path.name,
        arrays["x"],
        arrays["y"],
        test or valid,
        class_names,
        valid=valid if test else None,
        classes=classes,
    )


def read_npz(path: Path, wanted: Sequence[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The wanted arrays that a file has, and the names of all its arrays.

    Raises
    ------
    DataError
        For a file that is no archive of arrays, is damaged, pickled or encrypted, or claims more data than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            found = {name: _read(archive, members[name]) for name in wanted if name in members}
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        MemoryError,
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} is not a readable .npz file of numbers ({error})") from None
    return found, list(members)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    what = info.filename
    if not info.filename.endswith(".npy"):
        raise DataError(f"{what} is no array; numpy.savez writes arrays, with names that end in .npy")
    if info.flag_bits & 1:
        raise DataError(f"{what} is encrypted; save it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{what} is compressed by another method than numpy.savez_compressed uses; save it with that")
    with archive.open(info) as member:
        dtype, shape, order, head = _header(member, what)
        size = prod(shape) * dtype.itemsize
        if head + size != info.file_size:
            raise DataError(
                f"{what} should hold {' x '.join(map(str, shape)) or '1'} entries of {dtype}, {size} bytes, and has "
                f"{info.file_size - head}; get it again"
            )
        data = decompressed(member, size, info.compress_size, what)
    if len(data) != size:
        raise DataError(f"{what} ends after {len(data)} of {size} bytes; get it again")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _header(member: Any, what: str) -> tuple[np.dtype[Any], tuple[int, ...], Any, int]:
    """The dtype, shape and memory order of an array, and the length of its header."""
    magic = member.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise DataError(f"{what} is no array: it begins with {magic[:6].hex(' ') or 'nothing'}")
    if magic[6] not in _LENGTHS:
        raise DataError(f"{what} is of version {magic[6]} of NumPy's format, which holds no plain numbers")
    packed = member.read(struct.calcsize(_LENGTHS[magic[6]]))
    (length,) = struct.unpack(_LENGTHS[magic[6]], packed)
    if length > _LONGEST_HEADER:
        raise DataError(
            f"{what} has a header of {length} bytes; of an array of numbers it has at most {_LONGEST_HEADER}"
        )
    descr, fortran, shape = _literals(member.read(length), what)
    if isinstance(descr, list):
        raise DataError(f"{what} holds records; images and labels are plain numbers")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError, SyntaxError) as error:
        raise DataError(f"{what} has a damaged header ({error}); get it again") from None
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled objects, which can run code and are not read; save numbers")
    if dtype.kind == "V" or not dtype.itemsize:
        raise DataError(f"{what} holds {dtype}; images and labels are plain numbers")
    return dtype, shape, "F" if fortran else "C", len(magic) + len(packed) + length


def _literals(text: bytes, what: str) -> tuple[Any, bool, tuple[int, ...]]:
    """The dtype's description, whether the order is Fortran's, and the shape, from a header of Python literals."""
    try:
        # Python 2 wrote integers as 20L.
        header = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.decode("latin1")).strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    # The parser raises MemoryError for too many brackets.
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError) as error:
        raise DataError(f"{what} has a damaged header ({type(error).__name__}); get it again") from None
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not sizes or not isinstance(descr, str | list) or not isinstance(fortran, bool):
        raise DataError(f"{what} has a damaged header ({str(header)[:100]}); get it again")
    return descr, fortran, shape


def _pair(path: Path, arrays: dict[str, NDArray[Any]], ending: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    x, y = f"x{ending}", f"y{ending}"
    if (x in arrays) != (y in arrays):
        raise DataError(f"{path} has only one of {x} and {y}")
    return (arrays[x], arrays[y]) if x in arrays else None


def _class_names(path: Path, names: NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US" or not names.size:
        raise DataError(
            f"class_names of {path} is {names.dtype} of shape {names.shape}; it must hold one string for each class"
        )
    try:
        found = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist())
    except UnicodeDecodeError as error:
        raise DataError(f"class_names of {path} is no text in UTF-8 ({error})") from None
    if len({*found}) < len(found) or not all(name and name.isprintable() for name in found):
        raise DataError(f"class_names of {path} names a class twice, or with an empty or unprintable name")
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "nothing"
