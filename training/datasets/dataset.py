"""The Dataset: images, classes, and what to multiply images by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import Generator
from ..augment import evaluation
from ..data import DataLoader
from ..images import Images, joined, selected
from .checks import DataError, check_labels, checked, fingerprint, largest

HELD_OUT = 5  # one sample in this many


@dataclass(frozen=True)
class Dataset:
    """Images and classes, for training and held out.

    Attributes
    ----------
    name : str
        ``"digits"``, or the name of the file or folder.
    x_train, y_train, x_test, y_test : array
        Images ``(N, C, H, W)`` as they are stored, perhaps mapped from a file or decoded when indexed, and classes
        ``(N,)`` in int64. `loader` and `held_out` give them in float32, times ``scale``.
    fingerprint : str
        SHA-256 of all images and classes, by which a later run knows the data again.
    whole_is_test : bool
        Whether the source named no held-out part, so that all of it may serve as one for a model not trained on it.
    scale : float
        What to multiply images by, so that those for training reach at most 1.
    class_names : tuple of str
        One for each class: those of the source, or its numbers.
    """

    name: str
    x_train: Images
    y_train: NDArray[np.int64]
    x_test: Images
    y_test: NDArray[np.int64]
    fingerprint: str
    whole_is_test: bool
    scale: float
    class_names: tuple[str, ...]

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.x_train.shape
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def whole(self) -> tuple[Images, NDArray[np.int64]]:
        """All images and classes together."""
        return joined([self.x_train, self.x_test]), np.concatenate([self.y_train, self.y_test])

    def loader(self, batch_size: int = 32, **options: Any) -> DataLoader:
        """Batches of the training part, scaled; ``options`` are those of `DataLoader`."""
        return DataLoader(self.x_train, self.y_train, batch_size, scale=self.scale, **options)

    def held_out(
        self, batch_size: int = 256, *, transform: Callable[..., Any] | None = None, **options: Any
    ) -> DataLoader:
        """Batches of the held-out part, scaled and in order.

        ``transform`` is that of training; what of it is random is left out.
        """
        transform = evaluation(transform)
        options = {"shuffle": False, "scale": self.scale, **options}
        return DataLoader(self.x_test, self.y_test, batch_size, transform=transform, **options)


def from_arrays(
    name: str,
    x: NDArray[Any],
    y: NDArray[Any],
    held_out: tuple[NDArray[Any], NDArray[Any]] | None,
    class_names: tuple[str, ...] | None = None,
    *,
    stored: bool = False,
) -> Dataset:
    """A dataset of arrays, checked, with a fifth of each class held out where ``held_out`` is None.

    With ``stored`` images keep their dtype, and bytes are scaled by 255. Otherwise all but bytes become float32, scaled
    by their largest, and the fingerprint is that of float32.
    """
    x, y = _prepared(x, y, "x", "y", stored)
    if held_out is not None:
        held_out = _prepared(*held_out, "x_test", "y_test", stored)
        if held_out[0].shape[1:] != x.shape[1:]:
            raise DataError(
                f"images of x are {_size(x)}, those of x_test {_size(held_out[0])}; they must be of one size"
            )
    return assemble(name, x, y, held_out, class_names, floats=not stored)


def assemble(
    name: str,
    x: Images,
    y: NDArray[np.int64],
    held_out: tuple[Images, NDArray[np.int64]] | None,
    class_names: tuple[str, ...] | None = None,
    *,
    floats: bool = False,
    known: str | None = None,
) -> Dataset:
    """A dataset of images and labels that were checked; ``known`` is its fingerprint, if it need not be computed."""
    if held_out is None:
        test = _held_out(y)
        parts = (selected(x, ~test), y[~test], selected(x, test), y[test])
    else:
        parts = (x, y, *held_out)
    x_train, y_train, _, y_test = parts
    classes = len(class_names) if class_names else int(y_train.max()) + 1
    check_labels(y_train, classes, "labels")
    check_labels(y_test, classes, "test labels")
    if not class_names and classes > len(x):
        raise DataError(f"labels run to {classes - 1} with {len(x)} samples, out of range: classes are 0, 1, 2...")
    if x.dtype == np.uint8 and not floats:
        scale = 1.0 / 255.0
    else:
        most = largest(x_train)
        scale = 1.0 / most if most else 1.0
    return Dataset(
        name,
        *parts,
        known or fingerprint(*parts, floats=floats),
        held_out is None,
        scale,
        class_names or tuple(map(str, range(classes))),
    )


def _held_out(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples are held out: a fifth of each class, picked by a fixed seed."""
    if len(y) < HELD_OUT:
        raise DataError(f"{len(y)} samples are too few to hold one in {HELD_OUT} out")
    generator = Generator(0).fold_in("held out")
    held_out = np.zeros(len(y), dtype=np.bool_)
    for label in np.unique(y).tolist():
        members = np.flatnonzero(y == label)
        order = generator.fold_in(label).permutation(len(members))
        held_out[members[order[: round(len(members) * (1 / HELD_OUT))]]] = True
    if not held_out.any():
        raise DataError(
            f"no class has the {(HELD_OUT + 1) // 2} samples of which one is held out; add x_test and y_test, or a "
            "folder test"
        )
    return held_out


def _prepared(
    x: NDArray[Any], y: NDArray[Any], x_name: str, y_name: str, stored: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Checked, and unless ``stored`` all images but bytes in float32."""
    x, y = checked(x, y, x_name, y_name)
    if stored or x.dtype.itemsize == 1:
        return x, y
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32, copy=False)
    if not (np.isfinite(narrow.max()) and np.isfinite(narrow.min())):
        raise DataError(f"{x_name} reaches {largest(x):g}, beyond the range of float32; scale it down")
    return narrow, y


def _size(x: Images) -> str:
    return " x ".join(map(str, x.shape[1:]))
