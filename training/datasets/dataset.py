"""The `Dataset`: images, their classes and the factor that scales the images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...backends import Generator
from ..augment.transform import evaluation
from ..data_loader import DataLoader
from ..images import Images, joined, selected
from .checks import DataError, check_labels, checked, fingerprint, largest, warn

Part: TypeAlias = tuple[Images, NDArray[np.int64]]

# One sample in five is held out.
HELD_OUT = 5


@dataclass(frozen=True)
class Dataset:
    """Images and classes for training, held out and, if the source has three parts, for validation.

    With two parts, the held-out part is measured and also used by early stopping and to choose the best checkpoint, so
    its accuracy with the chosen weights is slightly too good. With three, `validation` is used to choose, and the
    held-out part is measured once, at the end.

    Attributes
    ----------
    name : str
        ``"digits"``, or the name of the file or folder.
    x_train, y_train, x_test, y_test : array
        Images ``(N, C, H, W)`` in their stored dtype, possibly memory-mapped or decoded when indexed, and classes
        ``(N,)`` in int64. `loader` and `held_out` return images in float32, times ``scale``.
    fingerprint : str
        SHA-256 of all images and classes, by which a later run recognises the data.
    whole_is_test : bool
        Whether the source has no held-out part, so that all of it can be held out for a model not trained on it.
    scale : float
        The factor for images, with which those for training are at most 1.
    class_names : tuple of str
        One for each class: names from the source, or the class numbers.
    named : bool
        Whether the names come from the source.
    x_valid, y_valid : array or None
        The validation part, if the source has one beside the held-out part.
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
    named: bool = False
    x_valid: Images | None = None
    y_valid: NDArray[np.int64] | None = None

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
        """All images and classes."""
        valid = [] if self.x_valid is None else [self.x_valid]
        return joined([self.x_train, *valid, self.x_test]), self.labels()

    def labels(self) -> NDArray[np.int64]:
        """The classes of all images, in the order of `whole`."""
        valid = [] if self.y_valid is None else [self.y_valid]
        return np.concatenate([self.y_train, *valid, self.y_test])

    def loader(self, batch_size: int = 32, **options: Any) -> DataLoader:
        """Batches of the training part, scaled; ``options`` are passed to `DataLoader`."""
        return DataLoader(self.x_train, self.y_train, batch_size, scale=self.scale, **options)

    def held_out(
        self, batch_size: int = 256, *, transform: Callable[..., Any] | None = None, **options: Any
    ) -> DataLoader:
        """Batches of the held-out part, scaled and in order.

        ``transform`` is the transform of training; its random parts are left out.
        """
        return self._in_order(self.x_test, self.y_test, batch_size, transform, options)

    def validation(
        self, batch_size: int = 256, *, transform: Callable[..., Any] | None = None, **options: Any
    ) -> DataLoader:
        """Batches of the validation part, in the form of `held_out`; the same as `held_out` if there are two parts.

        Use these for early stopping, to choose the best epoch and to lower the learning rate on a plateau.
        """
        if self.x_valid is None or self.y_valid is None:
            return self.held_out(batch_size, transform=transform, **options)
        return self._in_order(self.x_valid, self.y_valid, batch_size, transform, options)

    def _in_order(
        self,
        x: Images,
        y: NDArray[np.int64],
        batch_size: int,
        transform: Callable[..., Any] | None,
        options: dict[str, Any],
    ) -> DataLoader:
        options = {"shuffle": False, "scale": self.scale, **options}
        return DataLoader(x, y, batch_size, transform=evaluation(transform), **options)


def from_arrays(
    name: str,
    x: NDArray[Any],
    y: NDArray[Any],
    held_out: tuple[NDArray[Any], NDArray[Any]] | None,
    class_names: tuple[str, ...] | None = None,
    *,
    valid: tuple[NDArray[Any], NDArray[Any]] | None = None,
    classes: int | None = None,
    stored: bool = False,
) -> Dataset:
    """A dataset of checked arrays; a fifth of each class is held out if ``held_out`` is None.

    With ``stored``, images keep their dtype, and bytes are divided by 255. Otherwise all dtypes except bytes become
    float32, divided by their largest magnitude, and the fingerprint is that of float32.
    """
    x, y = _prepared(x, y, "x", "y", stored)
    others = []
    for ending, part in (("test", held_out), ("valid", valid)):
        others.append(None if part is None else _prepared(*part, f"x_{ending}", f"y_{ending}", stored))
        if (found := others[-1]) is not None and found[0].shape[1:] != x.shape[1:]:
            raise DataError(
                f"images of x are {_size(x)}, those of x_{ending} {_size(found[0])}; they must be of one size"
            )
    return assemble(
        name,
        x,
        y,
        others[0],
        class_names,
        valid=others[1],
        classes=classes,
        evaluation_only=classes is not None,
        floats=not stored,
    )


def assemble(
    name: str,
    x: Images,
    y: NDArray[np.int64],
    held_out: Part | None,
    class_names: tuple[str, ...] | None = None,
    *,
    valid: Part | None = None,
    classes: int | None = None,
    evaluation_only: bool = False,
    floats: bool = False,
    known: str | None = None,
) -> Dataset:
    """A dataset of images and labels that have been checked.

    ``classes`` is the number of classes if it does not follow from labels or names. With ``evaluation_only`` no net is
    trained on the data, so it may be of one class and too small to hold a part out. ``known`` is the fingerprint, if it
    need not be computed.
    """
    if held_out is None:
        test = _held_out(y, required=not evaluation_only)
        parts = (selected(x, ~test), y[~test], selected(x, test), y[test])
    else:
        parts = (x, y, *held_out)
    every = (*parts, *(valid or ()))
    largest_label = int(max(labels.max() for labels in every[1::2] if len(labels)))
    count = len(class_names) if class_names else classes or int(parts[1].max()) + 1
    for labels, what in zip(every[1::2], ("labels", "test labels", "validation labels"), strict=False):
        check_labels(labels, count, what)
    if not class_names and not classes and count > len(x):
        raise DataError(f"labels run to {count - 1} with {len(x)} samples, out of range: classes are 0, 1, 2...")
    if not evaluation_only and all(bool((labels == largest_label).all()) for labels in every[1::2]):
        only = class_names[largest_label] if class_names else str(largest_label)
        warn(f"{name} has images of one class only ({only}), so every prediction will be right")
    if x.dtype == np.uint8 and not floats:
        scale = 1.0 / 255.0
    else:
        most = largest(parts[0])
        scale = 1.0 / most if most else 1.0
    return Dataset(
        name,
        *parts,
        known or fingerprint(*every, floats=floats),
        held_out is None,
        scale,
        class_names or tuple(map(str, range(count))),
        class_names is not None,
        *(valid or ()),
    )


def _held_out(y: NDArray[Any], required: bool) -> NDArray[np.bool_]:
    """Which samples are held out: a fifth of each class, drawn with a fixed seed; perhaps none unless ``required``."""
    if len(y) < HELD_OUT and required:
        raise DataError(f"{len(y)} samples are too few to hold one in {HELD_OUT} out")
    generator = Generator(0).fold_in("held out")
    held_out = np.zeros(len(y), dtype=np.bool_)
    for label in np.unique(y).tolist():
        members = np.flatnonzero(y == label)
        order = generator.fold_in(label).permutation(len(members))
        held_out[members[order[: round(len(members) * (1 / HELD_OUT))]]] = True
    if required and not held_out.any():
        raise DataError(
            f"no class has the {(HELD_OUT + 1) // 2} samples of which one is held out; add x_test and y_test, or a "
            "folder test"
        )
    return held_out


def _prepared(
    x: NDArray[Any], y: NDArray[Any], x_name: str, y_name: str, stored: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Checked images and labels; the images in float32 unless they are ``stored`` or bytes."""
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
