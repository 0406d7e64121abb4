"""Which folders are classes, and which files are the images of a class.

A folder has a folder of images for each class. It may be split: then ``train``, ``valid`` and ``test`` (or another
spelling in `SPLITS`) hold the folders of the classes.

Hidden files and folders are ignored, and so are files whose ending is not that of an image. Images in nested folders
count to the class. If this means that the given folder is one level too high, it is refused where the names show it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .checks import DataError, warn
from .decode import ENDINGS

#: Names of folders in lower case, and which part of the data they hold: for training, validation or testing.
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
# Folders that archivers and file servers add.
_IGNORED = frozenset({"__MACOSX", "@eaDir"})


@dataclass(frozen=True)
class Part:
    """The image files of one part of the data, in order, and the class of each."""

    paths: list[Path]
    labels: list[int]

    def without(self, excluded: set[Path]) -> "Part":
        """All other files."""
        pairs = [(path, label) for path, label in zip(self.paths, self.labels, strict=True) if path not in excluded]
        return Part([path for path, _ in pairs], [label for _, label in pairs])


@dataclass(frozen=True)
class Classes:
    """Sorted class names, the files for training and, if the folder is split, those for testing and validation."""

    names: tuple[str, ...]
    train: Part
    test: Part | None
    valid: Part | None = None


def find_classes(folder: Path, evaluation_only: bool = False) -> Classes | None:
    """The classes of a folder, or None if none of its folders has images.

    Raises
    ------
    DataError
        For a class without images, one that is held out and not trained, parts that are incomplete or present twice,
        and a folder that is one level too high.
    """
    subfolders = _subfolders(folder)
    splits: dict[str, list[_Subfolder]] = {}
    for subfolder in subfolders:
        if kind := SPLITS.get(subfolder.path.name.lower()):
            splits.setdefault(kind, []).append(subfolder)
    parts = [subfolder for found in splits.values() for subfolder in found]
    if not any(part.nested() for part in parts):
        _refuse_flat_splits(folder, parts, [each for each in subfolders if each.images and each not in parts])
        if not any(each.images for each in subfolders):
            return None
        names, part = _scan(folder, subfolders, f"name {folder}/", trained=True)
        return Classes(names, part, None)
    _check_splits(folder, splits, parts)
    for subfolder in subfolders:
        if subfolder.images and subfolder not in parts:
            warn(
                f"{subfolder.path} is left out with {len(subfolder.images)} images: its name is not that of a part "
                f"({', '.join(SPLITS)})"
            )
    names, train = _scan(splits["train"][0].path, None, "move up what is in ", trained=True)
    held_out = {}
    for kind in ("valid", "test"):
        if kind in splits:
            held_out[kind] = _scan_held_out(splits[kind][0].path, splits["train"][0].path, names, evaluation_only)
    if "test" not in held_out:
        return Classes(names, train, held_out.get("valid"))
    return Classes(names, train, held_out["test"], held_out.get("valid"))


@dataclass(frozen=True)
class _Subfolder:
    """A folder within the data, and all images below it."""

    path: Path
    images: list[Path]

    def direct(self) -> int:
        """The number of images in the folder itself."""
        return sum(image.parent == self.path for image in self.images)

    def nested(self) -> list[str]:
        """Names of the folders directly in it that have images at any depth."""
        depth = len(self.path.parts)
        return sorted({image.parts[depth] for image in self.images if len(image.parts) > depth + 1})


def _subfolders(folder: Path) -> list[_Subfolder]:
    """The folders in a folder, sorted by name and without hidden ones, and the images of each."""
    found = []
    for path in sorted(folder.iterdir()):
        if _is_ignored(path.name) or not path.is_dir():
            continue
        if path.is_symlink() and folder.is_relative_to(path.resolve()):
            raise DataError(f"{path} is a link to a folder that contains it; remove it")
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{os.fsencode(path)!r} has a name that is no text in UTF-8; rename it") from None
        found.append(_Subfolder(path, images_below(path)))
    return found


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and the folders in it, by their endings, sorted; hidden ones are left out."""
    return sorted(_images(folder))


def _images(folder: Path) -> Iterator[Path]:
    """All image files below a folder, by their endings; links are followed, but into no folder twice."""
    waiting, seen = [folder], set()
    while waiting:
        current = waiting.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(current) as entries:
            for entry in entries:
                if _is_ignored(entry.name):
                    continue
                if _is_folder(entry):
                    waiting.append(current / entry.name)
                elif _is_image(entry.name):
                    yield current / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself. Reading it as an image will report it.
        return False


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _IGNORED


def _is_image(name: str) -> bool:
    return not _is_ignored(name) and os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 - of millions of names


def _check_splits(folder: Path, splits: dict[str, list[_Subfolder]], parts: Sequence[_Subfolder]) -> None:
    """Raise unless there is one folder for training, at most one for each other part, and all have classes."""
    for kind, found in splits.items():
        if len(found) > 1:
            both = " and ".join(part.path.name for part in found)
            raise DataError(f"{folder} has two folders for {kind}, {both}; keep one")
    if "train" not in splits:
        raise DataError(
            f"{folder} has {' and '.join(part.path.name for part in parts)} and no folder for training; name it "
            f"{' or '.join(SPELLINGS['train'])}"
        )
    for part in parts:
        if not part.nested():
            raise DataError(f"{part.path} has no images in folders of classes")


def _refuse_flat_splits(folder: Path, parts: Sequence[_Subfolder], others: Sequence[_Subfolder]) -> None:
    """Raise for folders that have the name of a part and images in no class; `train` may be a class of vehicles."""
    for part in parts:
        if not part.images:
            continue
        name = part.path.name
        if not others or name.lower() != "train":
            raise DataError(
                f"{part.path} holds images of no class: a folder of that name is a part of the data and has a folder "
                f"for each class. If {name} is a class, put all classes into {folder}/train"
            )
        warn(f"{part.path} is used as a class: neither it nor the folders beside it have folders of classes")


def _scan(
    folder: Path, subfolders: list[_Subfolder] | None, remedy: str, trained: bool
) -> tuple[tuple[str, ...], Part]:
    """Names of classes and their images; ``remedy`` is what to do with a folder whose folders are the classes."""
    subfolders = _subfolders(folder) if subfolders is None else subfolders
    if trained and (empty := [each.path.name for each in subfolders if not each.images]):
        endings = ", ".join(sorted(ending[1:] for ending in ENDINGS))
        raise DataError(f"{folder} has no image in class folder {empty[0]} (image files end in {endings})")
    _check_level(folder, [each for each in subfolders if each.images], remedy)
    if loose := sum(_is_image(path.name) and path.is_file() for path in folder.iterdir()):
        warn(f"{loose} images in {folder} itself are in no class and left out")
    part = Part([], [])
    for label, each in enumerate(subfolders):
        part.paths.extend(each.images)
        part.labels.extend([label] * len(each.images))
    return tuple(each.path.name for each in subfolders), part


def _scan_held_out(folder: Path, train: Path, names: tuple[str, ...], evaluation_only: bool) -> Part:
    """The files of a part that is not trained on, with the class numbers of training."""
    found, part = _scan(folder, None, "move up what is in ", trained=False)
    if unknown := sorted({*found} - {*names}):
        raise DataError(f"{folder} has class {', '.join(unknown)}, which {train} does not have ({', '.join(names)})")
    labels = [names.index(found[label]) for label in part.labels]
    present = {*labels}
    if not evaluation_only and (missing := [name for label, name in enumerate(names) if label not in present]):
        warn(f"{folder} has no images of class {', '.join(missing)}")
    return Part(part.paths, labels)


def _check_level(folder: Path, subfolders: Sequence[_Subfolder], remedy: str) -> None:
    """Raise if the classes are not the folders in ``folder`` but folders in these; warn of images in nested folders."""
    for subfolder in subfolders:
        parts = [name for name in subfolder.nested() if name.lower() in SPLITS]
        if not parts:
            continue
        if any(each.images for each in _subfolders(subfolder.path / parts[0])):
            raise DataError(
                f"{folder} is one level too high: {subfolder.path.name} is no class, it holds {', '.join(parts)}; "
                f"{remedy}{subfolder.path.name}"
            )
        raise DataError(
            f"{subfolder.path} holds {', '.join(parts)} of one class; the parts come first: "
            f"{parts[0]}/{subfolder.path.name}"
        )
    with_nested = [subfolder for subfolder in subfolders if subfolder.nested()]
    if not with_nested:
        return
    if len(subfolders) == 1 and not subfolders[0].direct():
        only = subfolders[0]
        below = only.path
        # Descend to the first folder that has several folders, or a folder with images.
        while len(inner := [each for each in _subfolders(below) if each.images]) == 1 and not inner[0].direct():
            below = inner[0].path
        names = ", ".join(each.path.name for each in inner)
        raise DataError(
            f"{folder} is one level too high: its only folder with images, {only.path.name}, is no class, since it "
            f"holds folders ({names}); {remedy}{below.relative_to(folder)}"
        )
    nested_names = {tuple(subfolder.nested()) for subfolder in subfolders}
    if len(nested_names) == 1 and len(subfolders[0].nested()) > 1 and not any(each.direct() for each in subfolders):
        raise DataError(
            f"{folder} is one level too high: {', '.join(each.path.name for each in subfolders)} hold the same "
            f"folders, {', '.join(subfolders[0].nested())}, which seem to be the classes; "
            f"{remedy}{subfolders[0].path.name}, or put all images of a class into one folder"
        )
    count = sum(len(subfolder.images) - subfolder.direct() for subfolder in with_nested)
    first = with_nested[0]
    warn(
        f"{count} images are in nested folders of {folder} and count to the outer folder's class, as those of "
        f"{first.path.name}/{first.nested()[0]} to class {first.path.name}"
    )
