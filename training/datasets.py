"""Labelled images from where people have them, checked before anything is trained.

Nothing is downloaded and nothing is unpickled. Whatever the source, a `Dataset` holds images ``(N, C, H, W)`` in
float32, scaled by one number to at most 1, classes as integers from 0, and a held-out part that training never sees.
"""

import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Generator

HELD_OUT = 5  # one sample in this many


class DataError(ValueError):
    """Data that can't be used, with what is wrong and what would be right."""


@dataclass(frozen=True)
class Dataset:
    """Images and classes, for training and held out.

    Attributes
    ----------
    name : str
        ``"digits"`` or the file's name.
    x_train, y_train, x_test, y_test : array
        Images ``(N, C, H, W)`` as they came, in float32, and classes ``(N,)`` in int64.
    fingerprint : str
        SHA-256 of all images and classes, by which a later run knows the data again.
    whole_is_test : bool
        Whether the source named no held-out part, so that all of it may serve as one for a model not trained on it.
    """

    name: str
    x_train: np.ndarray[Any, Any]
    y_train: np.ndarray[Any, Any]
    x_test: np.ndarray[Any, Any]
    y_test: np.ndarray[Any, Any]
    fingerprint: str
    whole_is_test: bool

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.x_train.shape
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes: one more than the largest of the training part."""
        return int(self.y_train.max()) + 1

    @property
    def scale(self) -> float:
        """What to multiply images by, so that those for training reach at most 1."""
        largest = float(np.max(np.abs(self.x_train)))
        return 1.0 / largest if largest else 1.0

    def whole(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """All images and classes together."""
        return np.concatenate([self.x_train, self.x_test]), np.concatenate([self.y_train, self.y_test])


def load_dataset(source: str | os.PathLike[str]) -> Dataset:
    """The data of that name or file.

    Parameters
    ----------
    source : str or path
        ``"digits"``: the 1,797 handwritten digits, 8 x 8, that come with scikit-learn. Otherwise an ``.npz`` file with
        ``x (N, H, W)`` or ``(N, C, H, W)`` and integer ``y (N,)``, and optionally ``x_test`` and ``y_test``; without
        these a fifth of each class, the same at each call, is held out.

    Raises
    ------
    DataError
        Saying what is wrong with the data.
    """
    if source == "digits":
        return _digits()
    return _npz(Path(source))


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"the digits come with scikit-learn, which is not installed ({error}): pip install scikit-learn"
        ) from None
    bunch = load_digits()
    return _dataset("digits", bunch.images, bunch.target, None)


def _npz(path: Path) -> Dataset:
    if not path.exists():
        raise DataError(f"no data file {path}; the data is digits or the path of an .npz file")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz file (a zip archive of arrays, as numpy.savez writes)")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "x_test", "y_test") if name in file.files}
            names = ", ".join(file.files) or "nothing"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file of numbers ({error})") from None
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(f"{path} has no array {' and no '.join(missing)}; it holds {names}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} has only one of x_test and y_test")
    held_out = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    return _dataset(path.name, arrays["x"], arrays["y"], held_out)


def _dataset(name: str, x: Any, y: Any, held_out: tuple[Any, Any] | None) -> Dataset:
    x, y = _checked(x, y, "x", "y")
    if held_out is None:
        if len(x) < HELD_OUT:
            raise DataError(f"{len(x)} samples are too few to hold one in {HELD_OUT} out")
        test = _held_out(y)
        if not test.any():
            raise DataError(
                f"no class has the {(HELD_OUT + 1) // 2} samples of which one is held out; add x_test and y_test"
            )
        parts = (x[~test], y[~test], x[test], y[test])
    else:
        parts = (x, y, *_checked(*held_out, "x_test", "y_test"))
        if parts[2].shape[1:] != x.shape[1:]:
            raise DataError(f"images of x are {_size(x)}, those of x_test {_size(parts[2])}; they must be of one size")
    data = Dataset(name, *parts, _fingerprint(*parts), held_out is None)
    check_labels(data.y_test, data.classes, "test labels")
    if data.classes > len(x):
        raise DataError(f"labels run to {data.classes - 1} with {len(x)} samples, out of range: classes are 0, 1, 2...")
    return data


def _held_out(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which samples are held out: a fifth of each class, picked by a fixed seed."""
    generator = Generator(0).fold_in("held out")
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y).tolist():
        members = np.flatnonzero(y == label)
        order = generator.fold_in(label).permutation(len(members))
        held_out[members[order[: round(len(members) * (1 / HELD_OUT))]]] = True
    return held_out


def _checked(x: Any, y: Any, x_name: str, y_name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if x.dtype.kind not in "uif":
        raise DataError(f"{x_name} holds {x.dtype}; images are integers or floats")
    if x.ndim not in (3, 4):
        raise DataError(f"{x_name} has shape {x.shape}; images are (N, H, W) or (N, C, H, W)")
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise DataError(f"{x_name} has shape {x.shape}, channels last it seems; transpose it to (N, C, H, W)")
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise DataError(f"{y_name} is {y.dtype} of shape {y.shape}; labels are integers of shape (N,)")
    if len(x) != len(y) or not len(x) or 0 in x.shape:
        raise DataError(f"{x_name} has shape {x.shape} and {y_name} {len(y)} labels; as many are needed, at least 1")
    if int(y.min()) < 0:
        raise DataError(f"{y_name} has label {int(y.min())}; labels run from 0 to the number of classes - 1")
    images = x.reshape(len(x), -1, *x.shape[-2:]).astype(np.float32)
    if not np.isfinite(images).all():
        raise DataError(f"{x_name} has NaN or infinite values")
    return images, y.astype(np.int64)


def check_labels(y: np.ndarray[Any, Any], classes: int, what: str) -> None:
    """Raise `DataError` unless all labels are below ``classes``."""
    if len(y) and int(y.max()) >= classes:
        raise DataError(f"{what} run to {int(y.max())}, out of range for {classes} classes (0 to {classes - 1})")


def _size(x: np.ndarray[Any, Any]) -> str:
    return " x ".join(map(str, x.shape[1:]))


def _fingerprint(*arrays: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
