"""A dataset of a folder of image files; `folder_layout` finds the classes.

Files that can't be read are named on standard error and left out, as long as each class has other images.
"""

import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...common.files import require_memory
from ..images import CHUNK, IN_MEMORY, Images
from .checks import DataError, warn
from .dataset import Dataset, assemble
from .decode import Header, ImageFiles, Unreadable, on_threads, read_header
from .folder_layout import Classes, Part


def load_folder(
    folder: Path, classes: Classes, image_size: tuple[int, int] | None, evaluation_only: bool = False
) -> Dataset:
    """The images of all classes, decoded once if they take up to 1 GB, and otherwise batch by batch.

    With ``evaluation_only`` no net is trained on them, so warnings that matter only in training are left out.
    """
    try:
        import PIL  # noqa: F401 - only whether it is installed
    except ImportError as error:
        raise DataError(
            f"images are read by Pillow, which is not installed ({error}): pip install 'pillow>=10.1'"
        ) from None
    parts = [part for part in (classes.train, classes.test, classes.valid) if part is not None]
    unreadable = UnreadableFiles()
    headers = [_headers(part, unreadable) for part in parts]
    parts = [part.without(unreadable.files) for part in parts]
    every = [header for found in headers for header in found]
    if not every:
        raise unreadable.error(folder)
    if image_size is None:
        (image_size, _), *_ = Counter((header.height, header.width) for header in every).most_common(1)
    channels = 1 if all(header.grey for header in every) else 3
    try:
        require_memory(4 * channels * prod(image_size), f"one image of {image_size[0]} x {image_size[1]} pixels")
    except ValueError as error:
        raise DataError(str(error)) from None
    if len(every) * channels * prod(image_size) <= IN_MEMORY:
        images, parts = _decode_all(parts, image_size, channels, unreadable)
    else:
        images = [ImageFiles(part.paths, image_size, channels) for part in parts]
    unreadable.summarise()
    if empty := [name for label, name in enumerate(classes.names) if label not in {*parts[0].labels}]:
        raise unreadable.error(folder, empty[0])
    if not all(part.paths for part in parts):
        raise unreadable.error(folder)
    digests = _content_digests(parts)
    if digests is not None and not evaluation_only:
        _warn_of_copies(parts, digests)
    pairs = [(x, np.array(part.labels, np.int64)) for x, part in zip(images, parts, strict=True)]
    return assemble(
        folder.name,
        *pairs[0],
        pairs[1] if len(pairs) > 1 else None,
        classes.names,
        valid=pairs[2] if len(pairs) > 2 else None,
        evaluation_only=evaluation_only,
        known=_fingerprint(folder, parts, (channels, *image_size), digests),
    )


class UnreadableFiles:
    """Files that can't be read: each is reported once on standard error, and their number at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.files: set[Path] = set()

    def add(self, path: Path, error: object) -> None:
        """Record a file and report what is wrong with it."""
        self.files.add(path)
        self.lines.append(f"{path}: {error}")
        print(f"left out {self.lines[-1]}", file=sys.stderr)

    def summarise(self) -> None:
        """Report the number of files, if there are any."""
        if self.lines:
            print(f"{len(self.lines)} image file(s) can't be read and were left out", file=sys.stderr)

    def error(self, folder: Path, name: str | None = None) -> DataError:
        """The error to raise if no image of a class, or of the whole folder, can be read."""
        first = "; ".join(self.lines[:10]) + ("; ..." if len(self.lines) > 10 else "")
        where = f"class {name} of {folder}" if name else str(folder)
        return DataError(f"{where} has no readable image: {len(self.lines)} file(s) can't be read: {first}")


def _headers(part: Part, unreadable: UnreadableFiles) -> list[Header]:
    """The headers of all readable files of a part."""
    from PIL.Image import DecompressionBombWarning

    found = []
    with warnings.catch_warnings():
        # Files that Pillow warns of are refused and reported as unreadable.
        warnings.simplefilter("ignore", DecompressionBombWarning)
        headers = on_threads(_header, part.paths)
    for path, header in zip(part.paths, headers, strict=True):
        if isinstance(header, Header):
            found.append(header)
        else:
            unreadable.add(path, header)
    return found


def _header(path: Path) -> Header | Unreadable:
    try:
        return read_header(path)
    except Unreadable as error:
        return error


def _decode_all(
    parts: list[Part], size: tuple[int, int], channels: int, unreadable: UnreadableFiles
) -> tuple[list[Images], list[Part]]:
    """All readable images in memory, and their files."""
    found: list[Images] = []
    rows = max(1, CHUNK // (channels * prod(size)))
    for part in parts:
        files, n = ImageFiles(part.paths, size, channels), 0
        array = np.empty(files.shape, np.uint8)
        for start in range(0, len(part.paths), rows):
            images, errors = files.read(part.paths[start : start + rows])
            array[n : n + len(images)] = images
            n += len(images)
            for path, error in errors:
                unreadable.add(path, error)
        found.append(array[:n])
    return found, [part.without(unreadable.files) for part in parts]


def _content_digests(parts: Sequence[Part]) -> list[list[str]] | None:
    """SHA-256 of each file's content; None if the files exceed 1 GB."""
    if sum(path.stat().st_size for part in parts for path in part.paths) > IN_MEMORY:
        return None
    return [[hashlib.sha256(path.read_bytes()).hexdigest() for path in part.paths] for part in parts]


def _warn_of_copies(parts: Sequence[Part], digests: Sequence[Sequence[str]]) -> None:
    """Warn of images that are both trained on and measured, and of images that are in two classes."""
    first: dict[str, tuple[Path, int]] = {}
    for digest, path, label in zip(digests[0], parts[0].paths, parts[0].labels, strict=True):
        first.setdefault(digest, (path, label))
    copies, clashes = [], []
    for number, (part, of_part) in enumerate(zip(parts, digests, strict=True)):
        for digest, path, label in zip(of_part, part.paths, part.labels, strict=True):
            seen = first.get(digest)
            if seen is not None and seen[0] != path and (number or len(parts) == 1):
                copies.append((path, seen[0]))
            if seen is not None and seen[1] != label:
                clashes.append((path, seen[0]))
    if copies:
        where = "are trained on too" if len(parts) > 1 else "are copies of others, of which some may be held out"
        warn(f"{len(copies)} images {where}, so accuracy is too good: {copies[0][0]} is the same as {copies[0][1]}")
    if clashes:
        warn(f"{len(clashes)} images are of two classes: {clashes[0][0]} is the same as {clashes[0][1]}")


def _fingerprint(folder: Path, parts: Sequence[Part], image: tuple[int, ...], digests: list[list[str]] | None) -> str:
    """SHA-256 of names, classes and contents of the files; of their sizes if the contents exceed 1 GB."""
    total = hashlib.sha256(repr(image).encode())
    for number, part in enumerate(parts):
        for i, (path, label) in enumerate(zip(part.paths, part.labels, strict=True)):
            content: Any = path.stat().st_size if digests is None else digests[number][i]
            total.update(repr((path.relative_to(folder).as_posix(), label, content)).encode())
        total.update(b"next")
    return total.hexdigest()
