"""A folder with a folder of images for each class, split or not.

Hidden files and folders don't count, nor does what is no image by its ending. Images in folders further down count to
the class; what that makes of a folder that is one level too high is no data but a mistake, and refused where it can be
told from the names.

A few files of many that can't be read don't stop the rest: each is named on standard error and left out.
"""

import hashlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...common.files import require_memory
from ..images import CHUNK, IN_MEMORY, Images
from .checks import DataError, warn
from .dataset import Dataset, assemble
from .decode import ENDINGS, Files, Header, Unreadable, on_threads, read_header

#: Names of parts, in lower case: for training, for choosing, for measuring.
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
SPELLINGS = {kind: [name for name, each in SPLITS.items() if each == kind] for kind in ("train", "valid", "test")}
# What archivers and file servers leave.
LITTER = frozenset({"__MACOSX", "@eaDir"})


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
    """Names in sorted order, and the files for training and, where the folder is split, held out and for choosing."""

    names: tuple[str, ...]
    train: Part
    test: Part | None
    valid: Part | None = None


@dataclass(frozen=True)
class Place:
    """A folder for a class, and where in it the images are."""

    path: Path
    images: list[Path]

    def direct(self) -> int:
        """How many lie in the folder itself."""
        return sum(image.parent == self.path for image in self.images)

    def inner(self) -> list[str]:
        """Folders in it that hold images, however far down."""
        depth = len(self.path.parts)
        return sorted({image.parts[depth] for image in self.images if len(image.parts) > depth + 1})


def find_classes(folder: Path, trial: bool = False) -> Classes | None:
    """The classes of a folder, or None where it has no folder with images.

    Raises
    ------
    DataError
        For a class without images, one that is held out and not trained, parts that are incomplete or given twice, and
        a folder that is one level too high.
    """
    places = _places(folder)
    splits: dict[str, list[Place]] = {}
    for place in places:
        if kind := SPLITS.get(place.path.name.lower()):
            splits.setdefault(kind, []).append(place)
    named = [place for found in splits.values() for place in found]
    if not any(place.inner() for place in named):
        _refuse_flat_splits(folder, named, [place for place in places if place.images and place not in named])
        if not any(place.images for place in places):
            return None
        names, part = _scanned(folder, places, f"name {folder}/", trained=True)
        return Classes(names, part, None)
    for kind, found in splits.items():
        if len(found) > 1:
            both = " and ".join(place.path.name for place in found)
            raise DataError(f"{folder} has two folders for {kind}, {both}; keep one")
    if "train" not in splits:
        raise DataError(
            f"{folder} has {' and '.join(place.path.name for place in named)} and no folder for training; name it "
            f"{' or '.join(SPELLINGS['train'])}"
        )
    for place in named:
        if not place.inner():
            raise DataError(f"{place.path} has no images in folders of classes")
    for place in places:
        if place.images and place not in named:
            known = ", ".join(SPLITS)
            warn(
                f"{place.path} is left out with {len(place.images)} images: beside parts it has no such name ({known})"
            )
    names, train = _scanned(splits["train"][0].path, None, "move up what is in ", trained=True)
    held = {}
    for kind in ("valid", "test"):
        if kind in splits:
            held[kind] = _held(splits[kind][0].path, splits["train"][0].path, names, trial)
    if "test" not in held:
        return Classes(names, train, held.get("valid"))
    return Classes(names, train, held["test"], held.get("valid"))


def _held(place: Path, train: Path, names: tuple[str, ...], trial: bool) -> Part:
    """A part that is not trained on, its classes numbered as those of training."""
    found, part = _scanned(place, None, "move up what is in ", trained=False)
    if unknown := sorted({*found} - {*names}):
        raise DataError(f"{place} has class {', '.join(unknown)}, which {train} has not ({', '.join(names)})")
    labels = [names.index(found[label]) for label in part.labels]
    there = {*labels}
    if not trial and (missing := [name for label, name in enumerate(names) if label not in there]):
        warn(f"{place} has no images of class {', '.join(missing)}")
    return Part(part.paths, labels)


def _refuse_flat_splits(folder: Path, named: Sequence[Place], others: Sequence[Place]) -> None:
    """Raise for folders that are called parts and hold images in no class; `train` may be a class of vehicles."""
    for place in named:
        if not place.images:
            continue
        if not others or place.path.name.lower() != "train":
            raise DataError(
                f"{place.path} holds images of no class: a folder of that name is a part of the data and has a folder "
                f"for each class. If {place.path.name} is a class, put all classes into {folder}/train"
            )
        warn(f"{place.path} is taken for a class: it has no folders of classes, and others beside it are none either")


def load_folder(folder: Path, classes: Classes, image_size: tuple[int, int] | None, trial: bool = False) -> Dataset:
    """Images of all classes, decoded once where they take up to 1 GB, and otherwise batch by batch.

    With ``trial`` they are for a net that was trained elsewhere, so nothing is said that matters in training.
    """
    try:
        import PIL  # noqa: F401 - whether it is there
    except ImportError as error:
        raise DataError(
            f"images are read by Pillow, which is not installed ({error}): pip install 'pillow>=10.1'"
        ) from None
    parts = [part for part in (classes.train, classes.test, classes.valid) if part is not None]
    complaints = Complaints()
    headers = [_headers(part, complaints) for part in parts]
    parts = [part.without(complaints.files) for part in parts]
    every = [header for found in headers for header in found]
    if not every:
        raise complaints.error(folder)
    if image_size is None:
        (image_size, _), *_ = Counter((header.height, header.width) for header in every).most_common(1)
    channels = 1 if all(header.grey for header in every) else 3
    try:
        require_memory(4 * channels * prod(image_size), f"one image of {image_size[0]} x {image_size[1]} pixels")
    except ValueError as error:
        raise DataError(str(error)) from None
    if len(every) * channels * prod(image_size) <= IN_MEMORY:
        found, parts = _decoded(parts, image_size, channels, complaints)
    else:
        found = [Files(part.paths, image_size, channels) for part in parts]
    complaints.summarise()
    if empty := [name for label, name in enumerate(classes.names) if label not in {*parts[0].labels}]:
        raise complaints.error(folder, empty[0])
    if not all(part.paths for part in parts):
        raise complaints.error(folder)
    contents = _contents(parts)
    if contents is not None and not trial:
        _tell_copies(parts, contents)
    held = [(images, np.array(part.labels, np.int64)) for images, part in zip(found, parts, strict=True)]
    return assemble(
        folder.name,
        *held[0],
        held[1] if len(held) > 1 else None,
        classes.names,
        valid=held[2] if len(held) > 2 else None,
        trial=trial,
        known=_fingerprint(folder, parts, (channels, *image_size), contents),
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


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _places(folder: Path) -> list[Place]:
    """Folders within, sorted by name, without hidden ones, and the images in each."""
    found = []
    for path in sorted(folder.iterdir()):
        if _hidden(path.name) or not path.is_dir():
            continue
        if path.is_symlink() and folder.is_relative_to(path.resolve()):
            raise DataError(f"{path} is a link to a folder that it lies in; remove it")
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{os.fsencode(path)!r} has a name that is no text in UTF-8; rename it") from None
        found.append(Place(path, sorted(_images(path))))
    return found


def _scanned(folder: Path, places: list[Place] | None, cure: str, trained: bool) -> tuple[tuple[str, ...], Part]:
    """Names of classes and their images; ``cure`` is what to do with a folder whose folders are the classes."""
    places = _places(folder) if places is None else places
    if trained and (empty := [place.path.name for place in places if not place.images]):
        endings = ", ".join(sorted(ending[1:] for ending in ENDINGS))
        raise DataError(f"{folder} has no image in class folder {empty[0]} (image files end in {endings})")
    _check_level(folder, [place for place in places if place.images], cure)
    if loose := sum(_is_image(path.name) and path.is_file() for path in folder.iterdir()):
        warn(f"{loose} images in {folder} itself are in no class and left out")
    part = Part([], [])
    for label, place in enumerate(places):
        part.paths.extend(place.images)
        part.labels.extend([label] * len(place.images))
    return tuple(place.path.name for place in places), part


def _check_level(folder: Path, places: Sequence[Place], cure: str) -> None:
    """Raise where the folders within are no classes but hold the folders that are; tell what lies further down."""
    for place in places:
        parts = [name for name in place.inner() if name.lower() in SPLITS]
        if not parts:
            continue
        there = place.path / parts[0]
        if any(each.images for each in _places(there)):
            raise DataError(
                f"{folder} is one level too high: {place.path.name} is no class, it holds {', '.join(parts)}; "
                f"{cure}{place.path.name}"
            )
        raise DataError(
            f"{place.path} holds {', '.join(parts)} of one class; the parts come first: {parts[0]}/{place.path.name}"
        )
    nested = [place for place in places if place.inner()]
    if not nested:
        return
    if len(places) == 1 and not places[0].direct():
        place = places[0]
        below = place.path
        # Down to where there is a choice, or where the images are.
        while len(inner := [each for each in _places(below) if each.images]) == 1 and not inner[0].direct():
            below = inner[0].path
        held = ", ".join(each.path.name for each in inner)
        raise DataError(
            f"{folder} is one level too high: its only folder with images, {place.path.name}, is no class, since it "
            f"holds folders ({held}); {cure}{below.relative_to(folder)}"
        )
    inner_names = {tuple(place.inner()) for place in places}
    if len(inner_names) == 1 and len(places[0].inner()) > 1 and not any(place.direct() for place in places):
        raise DataError(
            f"{folder} is one level too high: {', '.join(place.path.name for place in places)} hold the same folders, "
            f"{', '.join(places[0].inner())}, which seem to be the classes; {cure}{places[0].path.name}, or put all "
            "images of a class into one folder"
        )
    count = sum(len(place.images) - place.direct() for place in nested)
    first = nested[0]
    warn(
        f"{count} images lie further down than in the folders of {folder} and count to these, as those of "
        f"{first.path.name}/{first.inner()[0]} to class {first.path.name}"
    )


def _is_image(name: str) -> bool:
    return not _hidden(name) and os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 - of millions


def _images(folder: Path) -> Iterator[Path]:
    """All image files below a folder, by their endings; through links too, but into no folder twice."""
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        about = place.stat()
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                if _is_folder(entry):
                    waiting.append(place / entry.name)
                elif _is_image(entry.name):
                    yield place / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself: whether it is an image is found out with the others.
        return False


def _headers(part: Part, complaints: Complaints) -> list[Header]:
    from PIL.Image import DecompressionBombWarning

    found = []
    with warnings.catch_warnings():
        # Such files are refused, and told of as others are.
        warnings.simplefilter("ignore", DecompressionBombWarning)
        headers = on_threads(_header, part.paths)
    for path, header in zip(part.paths, headers, strict=True):
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


def _contents(parts: Sequence[Part]) -> list[list[str]] | None:
    """SHA-256 of each file's content; None where they exceed 1 GB."""
    if sum(path.stat().st_size for part in parts for path in part.paths) > IN_MEMORY:
        return None
    return [[hashlib.sha256(path.read_bytes()).hexdigest() for path in part.paths] for part in parts]


def _tell_copies(parts: Sequence[Part], contents: Sequence[Sequence[str]]) -> None:
    """Say on standard error which images are seen in training and measured on, or are of two classes."""
    first: dict[str, tuple[Path, int]] = {}
    for digest, path, label in zip(contents[0], parts[0].paths, parts[0].labels, strict=True):
        first.setdefault(digest, (path, label))
    copies, clashes = [], []
    for number, (part, digests) in enumerate(zip(parts, contents, strict=True)):
        for digest, path, label in zip(digests, part.paths, part.labels, strict=True):
            seen = first.get(digest)
            if seen is not None and seen[0] != path and (number or len(parts) == 1):
                copies.append((path, seen[0]))
            if seen is not None and seen[1] != label:
                clashes.append((path, seen[0]))
    if copies:
        where = "are trained on too" if len(parts) > 1 else "are copies of others, of which some may be held out"
        warn(f"{len(copies)} images {where}, so accuracy is too good, as {copies[0][0]}, the same as {copies[0][1]}")
    if clashes:
        warn(f"{len(clashes)} images are of two classes, as {clashes[0][0]}, the same as {clashes[0][1]}")


def _fingerprint(folder: Path, parts: Sequence[Part], image: tuple[int, ...], contents: list[list[str]] | None) -> str:
    """SHA-256 of names, classes and contents of files; of sizes in place of contents where these exceed 1 GB."""
    digest = hashlib.sha256(repr(image).encode())
    for number, part in enumerate(parts):
        for place, (path, label) in enumerate(zip(part.paths, part.labels, strict=True)):
            content: Any = path.stat().st_size if contents is None else contents[number][place]
            digest.update(repr((path.relative_to(folder).as_posix(), label, content)).encode())
        digest.update(b"next")
    return digest.hexdigest()
