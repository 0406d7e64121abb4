"""What a source is, told by looking at it."""

import os
import zipfile
from pathlib import Path

from ...backends import checks
from .checks import DataError
from .cifar import find_cifar, load_cifar
from .dataset import Dataset
from .digits import load_digits
from .folders import find_classes, load_folder
from .idx import is_idx, load_idx
from .npz import load_npz

FORMS = (
    "digits, an .npz file, or a folder with the IDX files of MNIST, the binary files of CIFAR-10 or CIFAR-100, or a "
    "folder of images for each class"
)


def load_dataset(source: str | os.PathLike[str], *, image_size: tuple[int, int] | None = None) -> Dataset:
    """The data of that name, file or folder.

    Parameters
    ----------
    source : str or path
        ``"digits"``
            The 1,797 handwritten digits, 8 x 8, that come with scikit-learn.
        an ``.npz`` file
            With ``x (N, H, W)`` or ``(N, C, H, W)`` and integer ``y (N,)``, and optionally ``x_test`` and ``y_test``.
        a folder with IDX files
            As MNIST and Fashion-MNIST are distributed: ``train-images-idx3-ubyte`` and so on, plain or ``.gz``.
        a folder with binary files of CIFAR
            ``data_batch_1.bin`` and so on, or ``train.bin`` and ``test.bin`` of CIFAR-100, whose fine labels are used.
        a folder with a folder of images for each class
            Or with two such folders, ``train`` and ``test`` (or ``val``, ``valid``).

        Where the source has no held-out part a fifth of each class, the same at each call, is held out.
    image_size : (int, int), optional
        Height and width to which the images of a folder are resized; the commonest size among them unless given. Other
        sources come in one size.

    Raises
    ------
    DataError
        Saying what is wrong with the data.
    """
    _check_size(image_size)
    if source == "digits":
        return _sized(load_digits(), image_size)
    path = Path(source)
    if not path.exists():
        raise DataError(f"no data file {path}; the data is {FORMS}")
    if not path.is_dir():
        if not zipfile.is_zipfile(path):
            hint = "; unpack it and name the folder" if ".tar" in path.name or path.suffix in (".gz", ".tgz") else ""
            raise DataError(f"{path} is no .npz file (a zip archive of arrays, as numpy.savez writes){hint}")
        return _sized(load_npz(path), image_size)
    path = path.resolve()
    if is_idx(path):
        return _sized(load_idx(path), image_size)
    if cifar := find_cifar(path):
        return _sized(load_cifar(*cifar), image_size)
    if classes := find_classes(path):
        return load_folder(path, classes, image_size)
    raise DataError(f"{path} holds {_contents(path)}; the data is {FORMS}")


def _check_size(image_size: tuple[int, int] | None) -> None:
    if image_size is None:
        return
    try:
        checks.shape("image_size", image_size, 1, "height and width, two integers >= 1", length=2)
    except ValueError as error:
        raise DataError(str(error)) from None


def _sized(data: Dataset, image_size: tuple[int, int] | None) -> Dataset:
    if image_size is not None and data.image[1:] != tuple(image_size):
        height, width = data.image[1:]
        raise DataError(
            f"the images of {data.name} are {height} x {width}, not {' x '.join(map(str, image_size))}; only folders "
            "of images are resized"
        )
    return data


def _contents(folder: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
