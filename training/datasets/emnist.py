"""EMNIST: handwritten digits and letters, in IDX files whose images are transposed, with a file of class names.

The files of a split are ``emnist-SPLIT-train-images-idx3-ubyte`` and so on, plain or ``.gz``, and
``emnist-SPLIT-mapping.txt``, whose lines are a label and the codes of the characters of its class.

References
----------
G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST: an extension of MNIST to handwritten letters", 2017,
arXiv:1702.05373.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.files import read_bytes
from .checks import DataError
from .dataset import Dataset, from_arrays
from .idx import find_idx, read_idx

SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_LONGEST_MAPPING = 1 << 16


def find_emnist(path: Path) -> tuple[Path, str] | None:
    """The folder and the split that a path means: a folder with the files of one, or ``FOLDER/emnist-SPLIT``.

    Raises
    ------
    DataError
        For a folder with the files of several.
    """
    if not path.is_dir():
        match = re.fullmatch(r"emnist-([a-z]+)", path.name)
        chosen = match and match.group(1)
        return (path.parent, chosen) if chosen in SPLITS and _has(path.parent, chosen) else None
    found = [split for split in SPLITS if _has(path, split)]
    if len(found) > 1:
        raise DataError(
            f"{path} has the files of EMNIST's {', '.join(found)}; name one, such as {path / f'emnist-{found[0]}'}"
        )
    return (path, found[0]) if found else None


def load_emnist(folder: Path, split: str, classes: int | None = None) -> Dataset:
    """The training files of a split and, if they exist, its test files as the held-out part; images are upright."""
    name = f"emnist-{split}"
    wanted = ["train"] + ["test"] * any(find_idx(folder, f"{name}-test-{kind}") for kind in (_IMAGES, _LABELS))
    parts = []
    for part in wanted:
        paths = [find_idx(folder, f"{name}-{part}-{kind}") for kind in (_IMAGES, _LABELS)]
        files = [f"{name}-{part}-{kind}" for kind, path in zip((_IMAGES, _LABELS), paths, strict=True) if path is None]
        if files:
            raise DataError(f"{folder} has no {' and no '.join(files)} (or the same with .gz)")
        images, labels = (read_idx(path) for path in paths if path is not None)
        if images.ndim != 3:
            raise DataError(f"{paths[0]} has {images.ndim} dimensions; EMNIST's images have 3")
        # Rows and columns are exchanged in these files.
        parts.append((images.transpose(0, 2, 1), labels))
    mapping = folder / f"{name}-mapping.txt"
    names = None
    if mapping.is_file():
        known = _read_mapping(mapping)
        numbers = sorted(known)
        names = tuple(known[number] for number in numbers)
        parts = [(images, _renumbered(labels, numbers, mapping)) for images, labels in parts]
    elif split == "letters":
        # Letters are numbered from 1.
        names = tuple(map(chr, range(ord("A"), ord("Z") + 1)))
        parts = [(images, _renumbered(labels, list(range(1, 27)), "1 to 26")) for images, labels in parts]
    try:
        (x, y), *test = parts
        return from_arrays(name, x, y, test[0] if test else None, names, classes=classes, stored=True)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def _has(folder: Path, split: str) -> bool:
    names = (f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in (_IMAGES, _LABELS))
    return any(find_idx(folder, name) for name in names)


def _renumbered(labels: NDArray[Any], numbers: list[int], known: object) -> NDArray[np.int64]:
    """Labels as positions among the sorted ``numbers`` of the classes."""
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise DataError(f"labels are {labels.dtype} of shape {labels.shape}; they are integers of shape (N,)")
    every = np.array(numbers, np.int64)
    found = np.minimum(np.searchsorted(every, labels), len(every) - 1)
    if (wrong := every[found] != labels).any():
        raise DataError(f"label {int(labels[np.argmax(wrong)])} is none of {known}")
    return found.astype(np.int64)


def _read_mapping(path: Path) -> dict[int, str]:
    """Characters by label: upper-case letters for those with which the lower-case ones are merged."""
    found: dict[int, str] = {}
    try:
        lines = read_bytes(path, _LONGEST_MAPPING).decode("ascii").split("\n")
        for line in filter(str.strip, lines):
            label, code, *_ = map(int, line.split())
            if label in found or label < 0 or not chr(code).isalnum() or code > 127:
                raise ValueError(f"line {line!r}")
            found[label] = chr(code)
        if not found or len({*found.values()}) < len(found):
            raise ValueError("two labels of one character, or none")
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is no mapping of EMNIST, lines of a label and codes of its characters ({error})"
        ) from None
    return found
