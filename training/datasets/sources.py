"""`load_dataset`: recognise what a source is and load it."""

import os
import zipfile
from pathlib import Path

from ...common import checks
from ...common.files import file_size
from .checks import DataError
from .cifar import find_cifar, load_cifar
from .dataset import Dataset
from .digits import load_digits
from .emnist import find_emnist, load_emnist
from .folder_layout import find_classes
from .folders import load_folder
from .idx import is_idx, load_idx
from .npz import load_npz

FORMS = (
    "digits, an .npz file, or a folder with the IDX files of MNIST or EMNIST, the binary files of CIFAR-10 or "
    "CIFAR-100, or a folder of images for each class"
)


def load_dataset(
    source: str | os.PathLike[str], *, image_size: tuple[int, int] | None = None, classes: int | None = None
) -> Dataset:
    """Load the dataset of a name, file or folder.

    Parameters
    ----------
    source : str or path
        ``"digits"``
            The 1,797 handwritten digits, 8 x 8, that come with scikit-learn.
        an ``.npz`` file
            With ``x (N, H, W)`` or ``(N, C, H, W)`` and integer ``y (N,)``, or ``x_train`` and ``y_train``, as
            Keras's ``mnist.npz``, and optionally ``x_test`` and ``y_test``,
            ``x_valid`` and ``y_valid`` (or ``x_val``, ``y_val``), and ``class_names``, a string for each class.
        a folder with IDX files
            As MNIST and Fashion-MNIST are distributed: ``train-images-idx3-ubyte`` and so on, plain or ``.gz``; or as
            EMNIST is, ``emnist-letters-train-images-idx3-ubyte`` and so on. Of a folder with several splits of EMNIST
            one is named as ``FOLDER/emnist-letters``.
        a folder with binary files of CIFAR
            ``data_batch_1.bin`` and so on, or ``train.bin`` and ``test.bin`` of CIFAR-100, whose fine labels are used.
        a folder with a folder of images for each class
            Or two or three such folders: ``train`` or ``training``; ``test`` or ``testing``; ``valid``, ``val`` or
            ``validation``; in upper or lower case.

        If the source has no held-out part, a fifth of each class, the same in each call, is held out. If it has a part
        for validation and none for testing, the former is held out. With both, validation is for choosing and testing
        for measuring: `Dataset.validation`, `Dataset.held_out`.
    image_size : (int, int), optional
        Height and width to which the images of a folder are resized; the default is the most common size. The images of
        other sources are not resized.
    classes : int, optional
        The number of classes of a net that is only evaluated on the data, not trained. Then labels without names may
        leave out classes, the data may be of one class, and it may be too small to hold a part out, which is then
        empty.

    Raises
    ------
    DataError
        If the data can't be used; the message says why.
    OSError
        If a file or folder can't be read.
    TypeError
        If the source is neither text nor a path.

    Notes
    -----
    Possible mistakes are reported on standard error: data of one class only, folders that are left out, images that are
    in two parts.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be 'digits' or the path of a file or folder, got {checks.shown(source)}")
    image_size = _checked_size(image_size)
    if classes is not None:
        classes = checks.integer("classes", classes, 1)
    if source == "digits":
        return _sized(load_digits(classes), image_size)
    path = Path(os.fsdecode(source))
    if (emnist := find_emnist(path)) is not None:
        return _sized(load_emnist(emnist[0].resolve(), emnist[1], classes), image_size)
    if not path.is_dir():
        try:
            file_size(path)
        except FileNotFoundError as error:
            raise DataError(f"{str(error).replace('no file', 'no data file', 1)}; the data is {FORMS}") from None
        # Raises if the file may not be read; is_zipfile would return False.
        path.open("rb").close()
        if not zipfile.is_zipfile(path):
            hint = "; unpack it and name the folder" if ".tar" in path.name or path.suffix in (".gz", ".tgz") else ""
            raise DataError(f"{path} is no .npz file (a zip archive of arrays, as numpy.savez writes){hint}")
        return _sized(load_npz(path, classes), image_size)
    path = path.resolve()
    if is_idx(path):
        return _sized(load_idx(path, classes), image_size)
    if cifar := find_cifar(path):
        return _sized(load_cifar(*cifar, classes is not None), image_size)
    if found := find_classes(path, classes is not None):
        return load_folder(path, found, image_size, classes is not None)
    raise DataError(f"{path} holds {_contents(path)}; the data is {FORMS}")


def _checked_size(image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    try:
        height, width = checks.shape("image_size", image_size, 1, "height and width, two integers >= 1", length=2)
    except ValueError as error:
        raise DataError(str(error)) from None
    return height, width


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
