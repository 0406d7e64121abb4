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
# Those of the five files of 10,000 images have 31 MB. Labels are read into memory, images are not.
_MOST_RECORDS = 1_000_000
_LONGEST_NAMES = 1 << 16
HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Form:
    """How one of the two is kept: files, and label bytes before each image, of which the last one counts."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int
    classes: int
    archive: str
    pickles: tuple[str, ...]


CIFAR10 = Form(
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
CIFAR100 = Form(
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
FORMS = (CIFAR10, CIFAR100)


def find_cifar(folder: Path) -> tuple[Form, Path] | None:
    """Which of the two a folder holds, itself or in the folder that the archive makes.

    Raises
    ------
    DataError
        For the Python version, which is pickled.
    """
    for form in FORMS:
        for place in (folder, folder / form.folder):
            if any((place / name).is_file() for name in (*form.train, form.test)):
                return form, place
    for form in FORMS:
        found = [folder / name for name in form.pickles if (folder / name).exists()]
        if folder.name in form.pickles or found:
            _refuse_pickles(form, folder)
    if all((folder / name).is_file() for name in ("train", "test", "meta")):
        _refuse_pickles(CIFAR100, folder)
    return None


def load_cifar(form: Form, folder: Path, trial: bool = False) -> Dataset:
    """All training files that are there and the test file, mapped.

    Where some of several training files are missing a line on standard error says so.
    """
    train = [name for name in form.train if (folder / name).is_file()]
    missing = [name for name in (*form.train, form.test) if not (folder / name).is_file()]
    if not train or form.test in missing:
        raise DataError(f"{folder} has no {' and no '.join(missing)}; unpack all of {form.archive}")
    if missing:
        print(f"{folder}: trains without {', '.join(missing)}, which {form.name} also has", file=sys.stderr)
    parts = [_read(form, folder / name) for name in train]
    x: Images = parts[0][0] if len(parts) == 1 else Joined([images for images, _ in parts])
    y = np.concatenate([labels for _, labels in parts])
    test = _read(form, folder / form.test)
    return assemble(folder.name, x, y, test, _class_names(form, folder), classes=form.classes, trial=trial)


def _read(form: Form, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record, size = form.label_bytes + int(np.prod(IMAGE)), path.stat().st_size
    if not size or size % record:
        raise DataError(
            f"{path} has {size} bytes, no whole number of records of {record} ({form.name}, binary version); "
            "get it again"
        )
    if size > _MOST_RECORDS * record:
        raise DataError(
            f"{path} has {size // record} images, {form.name} has 60000 in all; name the folder of its files"
        )
    rows: NDArray[Any] = np.asarray(np.memmap(path, np.uint8, "r", shape=(size // record, record)))
    labels = rows[:, form.label_bytes - 1].astype(np.int64)
    try:
        check_labels(labels, form.classes, "labels")
    except DataError as error:
        raise DataError(f"{path} is no file of {form.name}: {error}") from None
    return rows[:, form.label_bytes :].reshape(-1, *IMAGE), labels


def _class_names(form: Form, folder: Path) -> tuple[str, ...] | None:
    path = folder / form.names
    if not path.is_file():
        return None
    try:
        names = tuple(read_bytes(path, _LONGEST_NAMES).decode("utf-8", "replace").split())
    except ValueError as error:
        raise DataError(str(error)) from None
    if len({*names}) != len(names) or len(names) != form.classes:
        raise DataError(f"{path} names {len({*names})} classes, {form.name} has {form.classes}")
    return names


def _refuse_pickles(form: Form, folder: Path) -> None:
    raise DataError(
        f"{folder} holds the Python version of {form.name}; its files are pickles, which can run code and are not "
        f"read. Get the binary version, {form.archive}, from {HOME}"
    )
