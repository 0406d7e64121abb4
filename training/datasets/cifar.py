"""CIFAR-10 and CIFAR-100 in their binary version: records of one or two label bytes and 3 x 32 x 32 pixels.

References
----------
A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.files import read_bytes
from ..images import Images, Joined
from .checks import DataError, check_labels
from .dataset import Dataset, assemble

IMAGE = (3, 32, 32)
# CIFAR-10 has 10,000 images (31 MB) in each file. Only labels are read into memory.
_MOST_RECORDS = 1_000_000
_LONGEST_NAMES = 1 << 16
HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Version:
    """The files of CIFAR-10 or CIFAR-100, and the label bytes before each image, of which the last is the class."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int
    classes: int
    archive: str
    pickles: tuple[str, ...]


CIFAR10 = Version(
    name="CIFAR-10",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    label_bytes=1,
    classes=10,
    archive="cifar-10-binary.tar.gz",
    pickles=("cifar-10-batches-py", "batches.meta", "data_batch_1"),
)
CIFAR100 = Version(
    name="CIFAR-100",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    label_bytes=2,
    classes=100,
    archive="cifar-100-binary.tar.gz",
    pickles=("cifar-100-python",),
)
VERSIONS = (CIFAR10, CIFAR100)


def find_cifar(folder: Path) -> tuple[Version, Path] | None:
    """Which version a folder has, and the folder with its files: the same, or the one that the archive makes in it.

    Raises
    ------
    DataError
        For the files of the Python version, which are pickles.
    """
    for version in VERSIONS:
        for candidate in (folder, folder / version.folder):
            if any((candidate / name).is_file() for name in (*version.train, version.test)):
                return version, candidate
    for version in VERSIONS:
        found = [folder / name for name in version.pickles if (folder / name).exists()]
        if folder.name in version.pickles or found:
            _refuse_pickles(version, folder)
    if all((folder / name).is_file() for name in ("train", "test", "meta")):
        _refuse_pickles(CIFAR100, folder)
    return None


def load_cifar(version: Version, folder: Path, evaluation_only: bool = False) -> Dataset:
    """The training files that exist and the test file, memory-mapped.

    A line on standard error names the training files that are missing, if others exist.
    """
    train = [name for name in version.train if (folder / name).is_file()]
    missing = [name for name in (*version.train, version.test) if not (folder / name).is_file()]
    if not train or version.test in missing:
        raise DataError(f"{folder} has no {' and no '.join(missing)}; unpack all of {version.archive}")
    if missing:
        print(f"{folder}: trains without {', '.join(missing)}, which {version.name} also has", file=sys.stderr)
    parts = [_read(version, folder / name) for name in train]
    x: Images = parts[0][0] if len(parts) == 1 else Joined([images for images, _ in parts])
    y = np.concatenate([labels for _, labels in parts])
    test = _read(version, folder / version.test)
    return assemble(
        folder.name, x, y, test, _class_names(version, folder), classes=version.classes, evaluation_only=evaluation_only
    )


def _read(version: Version, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record, size = version.label_bytes + int(np.prod(IMAGE)), path.stat().st_size
    if not size or size % record:
        raise DataError(
            f"{path} has {size} bytes, no whole number of records of {record} ({version.name}, binary version); "
            "get it again"
        )
    if size > _MOST_RECORDS * record:
        raise DataError(
            f"{path} has {size // record} images, {version.name} has 60000 in all; name the folder of its files"
        )
    rows: NDArray[Any] = np.asarray(np.memmap(path, np.uint8, "r", shape=(size // record, record)))
    labels = rows[:, version.label_bytes - 1].astype(np.int64)
    try:
        check_labels(labels, version.classes, "labels")
    except DataError as error:
        raise DataError(f"{path} is no file of {version.name}: {error}") from None
    return rows[:, version.label_bytes :].reshape(-1, *IMAGE), labels


def _class_names(version: Version, folder: Path) -> tuple[str, ...] | None:
    path = folder / version.names
    if not path.is_file():
        return None
    try:
        names = tuple(read_bytes(path, _LONGEST_NAMES).decode("utf-8", "replace").split())
    except ValueError as error:
        raise DataError(str(error)) from None
    if len({*names}) != len(names) or len(names) != version.classes:
        raise DataError(f"{path} names {len({*names})} classes, {version.name} has {version.classes}")
    return names


def _refuse_pickles(version: Version, folder: Path) -> None:
    raise DataError(
        f"{folder} holds the Python version of {version.name}; its files are pickles, which can run code and are not "
        f"read. Get the binary version, {version.archive}, from {HOME}"
    )
