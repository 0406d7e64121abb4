"""A trained net that names the classes of new images."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import Generator, get_backend
from ...common import checks
from ...layers.activations.softmax import softmax
from ...layers.core.layer import Layer
from ..augment import Normalise
from ..datasets.checks import DataError
from ..datasets.decode import Unreadable, on_threads
from ..evaluation import BATCH, predict
from .new_images import NewImage, Preparation, listed_images

HostArray = NDArray[Any]


class Classifier:
    """A trained net with all that it needs for new images; `load_classifier` makes one of the folder of a run.

    Items, the argument of `predict` and `predict_proba`, are one of these or a list of them:

    - the path of an image file, or of a folder, for all images in it and below, in sorted order;
    - an array ``(H, W, C)`` or ``(H, W)`` of bytes (uint8), a picture of which 255 is white; or one of another dtype
      with the values and the size of the training data, ``(C, H, W)``, ``(H, W, C)`` or ``(H, W)``;
    - ``(N, ...)`` of these;
    - an image of Pillow.

    Files, Pillow's images and arrays of bytes may have any size: they are stretched to that of the training images,
    turned upright, and converted to grey or to red, green and blue, as training did it with a folder of images.

    Parameters
    ----------
    model : Layer
        With outputs ``(N, classes)``, to which `CrossEntropy` was applied in training.
    about : dict
        The checked description of the net.

    Attributes
    ----------
    model : Layer
    class_names : tuple of str
        In the order of the outputs.
    image : (int, int, int)
        Channels, height and width of the images of training.
    """

    def __init__(self, model: Layer, about: dict[str, Any]) -> None:
        channels, height, width = about["image"]
        self.model: Layer = model
        self.class_names: tuple[str, ...] = tuple(about["class_names"])
        self.image: tuple[int, int, int] = (channels, height, width)
        self._prepare = Preparation(self.image, about["scale"])
        normalise = about["normalise"]
        self._normalise = None if normalise is None else Normalise(normalise["mean"], normalise["std"])

    def predict(self, items: Any, *, batch_size: int = BATCH) -> list[str]:
        """The name of the likeliest class of each image, in the order of the items.

        Raises
        ------
        FileNotFoundError, DataError, TypeError, ValueError
            As `predict_proba`.
        """
        likeliest = np.argmax(self.predict_proba(items, batch_size=batch_size), axis=1)
        return [self.class_names[number] for number in likeliest.tolist()]

    def predict_proba(self, items: Any, *, batch_size: int = BATCH) -> HostArray:
        """The probability of each class for each image, ``(N, classes)`` in float64, in the order of the items.

        It is the softmax of the net's outputs. Images are read and computed ``batch_size`` at a time.

        Raises
        ------
        FileNotFoundError
            For a path that is not there.
        DataError
            A `ValueError`, for an image that can't be read or used, which is named, and a folder without images.
        TypeError, ValueError
            For items of another kind, and if the net's outputs are not as many finite numbers as classes.
        OutOfMemory
            If a batch does not fit; the message names one that does.
        """
        size = checks.integer("batch_size", batch_size, 1)
        found = [np.empty((0, len(self.class_names)))]
        for probabilities, _, errors in self.batches(listed_images(items), size):
            for item, error in errors:
                raise DataError(f"{item.name} can't be classified: {error}")
            found.append(probabilities)
        return np.concatenate(found)

    def batches(
        self, images: Sequence[NewImage], batch_size: int
    ) -> Iterator[tuple[HostArray, list[NewImage], list[tuple[NewImage, str]]]]:
        """For each batch the probabilities, the images that they are of, and those that can't be used, with why."""
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            with warnings.catch_warnings():
                # Pillow warns of images that are refused.
                warnings.simplefilter("ignore")
                prepared = on_threads(self._prepared, some)
            good = [(item, x) for item, x in zip(some, prepared, strict=True) if not isinstance(x, str)]
            errors = [(item, x) for item, x in zip(some, prepared, strict=True) if isinstance(x, str)]
            arrays = [x for _, x in good]
            probabilities = self._probabilities(np.stack(arrays)) if arrays else np.empty((0, len(self.class_names)))
            yield probabilities, [item for item, _ in good], errors

    def _prepared(self, item: NewImage) -> HostArray | str:
        """The image, scaled, or why it can't be used."""
        try:
            return self._prepare(item)
        except ImportError as error:
            return f"images are read by Pillow, which is not installed ({error}): pip install 'pillow>=10.1'"
        except Unreadable as error:
            return str(error)

    def _probabilities(self, x: HostArray) -> HostArray:
        if self._normalise is not None:
            x = self._normalise(x, Generator(0))
        with np.errstate(all="ignore"):
            scores = predict(self.model, x, batch_size=len(x))
        if scores.shape != (len(x), len(self.class_names)):
            raise ValueError(
                f"the net's outputs must have shape (images, {len(self.class_names)}), one for each class, got "
                f"{scores.shape}"
            )
        if not np.isfinite(scores).all():
            raise ValueError("the net's output is NaN or infinite; nothing can be said about these images")
        # Exact numerics: equal outputs have equal probabilities on every machine.
        xp = get_backend("numpy", numerics="exact").xp
        found: HostArray = np.asarray(softmax(scores.astype(np.float64), axis=1, xp=xp))
        return found

    def __repr__(self) -> str:
        channels, height, width = self.image
        backend = self.model.backend.spec
        return f"Classifier({len(self.class_names)} classes, images {channels} x {height} x {width}, on {backend})"
