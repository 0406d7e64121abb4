"""A folder with a folder of images for each class, split or not.

A few files of many that can't be read don't stop the rest: each is named on standard error and left out.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..images import CHUNK, IN_MEMORY, Images
from .checks import DataError
from .dataset import Dataset, assemble
from .decode import ENDINGS, Files, Header, Unreadable, on_threads, read_header

TRAIN, TEST = ("train",), ("test", "val", "valid")


@dataclass(frozen=True)
class Part:
    """The image files of a split, in order, and which class each is of."""

    paths: list[Path]
    labels: list[int]

    def without(self, bad: set[Path]) -> "Part":
        """All other files."""
        kept = [(path, label) for path, label in zip(self.paths, self.labels, strict=True) if path not in bad]
        return Part([path for path, _ in kept], [label for _, label in kept])


@dataclass(frozen=True)
class Classes:
    """Names in sorted order, and the files for training and, where the folder is split, held out."""

    names: tuple[str, ...]
    train: Part
    test: Part | None


def find_classes(folder: Path) -> Classes | None:
    """The classes of a folder, or None where it has no folder with images.

    Raises
    ------
    DataError
        For a class without images, and for one that is held out and not trained.
    """
    inner = {path.name.lower(): path for path in _folders(folder)}
    train = next((inner[name] for name in TRAIN if name in inner), None)
    test = next((inner[name] for name in TEST if name in inner), None)
    if train is None or not _folders(train):
        names, part = _scan(folder)
        return Classes(names, part, None) if part.paths and _complete(folder, names, part) else None
    names, part = _scan(train)
    if not part.paths:
        return None
    _complete(train, names, part)
    if test is None:
        return Classes(names, part, None)
    tested, held_out = _scan(test)
    if unknown := sorted({*tested} - {*names}):
        raise DataError(f"{test} has class {unknown[0]}, which {train} has not")
    if not held_out.paths:
        raise DataError(f"{test} has no images in folders of classes")
    labels = [names.index(tested[label]) for label in held_out.labels]
    return Classes(names, part, Part(held_out.paths, labels))


def load_folder(folder: Path, classes: Classes, image_size: tuple[int, int] | None) -> Dataset:
    """Images of all classes, decoded once where they take up to 1 GB, and otherwise batch by batch."""
    try:
        import PIL  # noqa: F401 - whether it is there
    except ImportError as error:
        raise DataError(
            f"images are read by Pillow, which is not installed ({error}): pip install 'pillow>=10.1'"
        ) from None
    parts = [part for part in (classes.train, classes.test) if part is not None]
    complaints = Complaints()
    headers = [_headers(part, complaints) for part in parts]
    parts = [part.without(complaints.files) for part in parts]
    every = [header for found in headers for header in found]
    if not every:
        raise complaints.error(folder)
    if image_size is None:
        (image_size, _), *_ = Counter((header.height, header.width) for header in every).most_common(1)
    channels = 1 if all(header.grey for header in every) else 3
    if len(every) * channels * prod(image_size) <= IN_MEMORY:
        found, parts = _decoded(parts, image_size, channels, complaints)
    else:
        found = [Files(part.paths, image_size, channels) for part in parts]
    complaints.summarise()
    for part in parts[:1]:
        if empty := [name for label, name in enumerate(classes.names) if label not in {*part.labels}]:
            raise complaints.error(folder, empty[0])
    if not parts[-1].paths:
        raise complaints.error(folder)
    labels = [np.array(part.labels, np.int64) for part in parts]
    return assemble(
        folder.name,
        found[0],
        labels[0],
        (found[1], labels[1]) if len(parts) > 1 else None,
        classes.names,
        known=_fingerprint(folder, parts, (channels, *image_size)),
    )


class Complaints:
    """Files that can't be read: each is told once, on standard error, and counted at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.files: set[Path] = set()

    def add(self, path: Path, error: object) -> None:
        """Note a file, and say what is wrong with it."""
        self.files.add(path)
        self.lines.append(f"{path}: {error}")
        print(f"left out {self.lines[-1]}", file=sys.stderr)

    def summarise(self) -> None:
        """Say how many there were, if any."""
        if self.lines:
            print(f"{len(self.lines)} image file(s) can't be read and were left out", file=sys.stderr)

    def error(self, folder: Path, name: str | None = None) -> DataError:
        """What to raise where no image is left, of a class or at all."""
        first = "; ".join(self.lines[:10]) + ("; ..." if len(self.lines) > 10 else "")
        where = f"class {name} of {folder}" if name else str(folder)
        return DataError(f"{where} has no readable image: {len(self.lines)} file(s) can't be read: {first}")


def _folders(folder: Path) -> list[Path]:
    """Folders within, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _scan(folder: Path) -> tuple[tuple[str, ...], Part]:
    places = _folders(folder)
    part = Part([], [])
    for label, place in enumerate(places):
        files = sorted(_images(place))
        part.paths.extend(files)
        part.labels.extend([label] * len(files))
    return tuple(place.name for place in places), part


def _images(folder: Path) -> Iterator[Path]:
    """All image files below a folder, by their endings."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS:  # noqa: PTH122 - of millions
                yield Path(root, name)


def _complete(folder: Path, names: Sequence[str], part: Part) -> bool:
    found = {*part.labels}
    if empty := [name for label, name in enumerate(names) if label not in found]:
        endings = ", ".join(sorted(ending[1:] for ending in ENDINGS))
        raise DataError(f"{folder} has no image in class folder {empty[0]} (image files end in {endings})")
    return True


def _headers(part: Part, complaints: Complaints) -> list[Header]:
    found = []
    for path, header in zip(part.paths, on_threads(_header, part.paths), strict=True):
        if isinstance(header, Header):
            found.append(header)
        else:
            complaints.add(path, header)
    return found


def _header(path: Path) -> Header | Unreadable:
    try:
        return read_header(path)
    except Unreadable as error:
        return error


def _decoded(
    parts: list[Part], size: tuple[int, int], channels: int, complaints: Complaints
) -> tuple[list[Images], list[Part]]:
    """All images in memory, and the files that they are of."""
    found: list[Images] = []
    rows = max(1, CHUNK // (channels * prod(size)))
    for part in parts:
        files, n = Files(part.paths, size, channels), 0
        array = np.empty(files.shape, np.uint8)
        for start in range(0, len(part.paths), rows):
            good, errors = files.read(part.paths[start : start + rows])
            array[n : n + len(good)] = good
            n += len(good)
            for path, error in errors:
                complaints.add(path, error)
        found.append(array[:n])
    return found, [part.without(complaints.files) for part in parts]


def _fingerprint(folder: Path, parts: Sequence[Part], image: tuple[int, ...]) -> str:
    """SHA-256 of names, classes and contents of files; of sizes in place of contents where these exceed 1 GB."""
    digest = hashlib.sha256(repr(image).encode())
    whole = sum(path.stat().st_size for part in parts for path in part.paths) <= IN_MEMORY
    for part in parts:
        for path, label in zip(part.paths, part.labels, strict=True):
            content: Any = hashlib.sha256(path.read_bytes()).hexdigest() if whole else path.stat().st_size
            digest.update(repr((path.relative_to(folder).as_posix(), label, content)).encode())
        digest.update(b"next")
    return digest.hexdigest()
