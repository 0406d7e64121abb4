"""Open the net in the folder of a run, on any backend, with images that it was not trained on.

Nothing in the folder is trusted: the description of the net is checked entry by entry, weights that are not finite are
refused, and classes of the data are matched with those of the net by name.
"""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...layers.core.layer import Layer
from ...training.augment import Normalise
from ...training.augment.transform import AnyTransform
from ...training.data_loader import DataLoader
from ...training.datasets import Dataset, Images, load_dataset
from ...training.saved_net.weights import CONFIG, load_weights, read_weights
from .. import config_file
from ..argument_types import checkpoint_name, text
from ..backend_option import add_backend, add_numerics, open_backend
from ..errors import UsageError
from .class_names import labels_by_name
from .description import rebuild

HostArray = np.ndarray[Any, Any]


def add_net_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_net` reads."""
    add_weight_options(parser)
    parser.add_argument(
        "--data",
        default=None,
        type=text,
        metavar="digits|FILE.npz|DIR",
        help="images and labels (default: those of the run)",
    )
    add_backend(parser)
    add_numerics(parser)


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which weights of which net are read."""
    parser.add_argument("folder", type=text, metavar="DIR", help="a folder that xpnn train wrote")
    parser.add_argument(
        "--checkpoint",
        default=None,
        type=checkpoint_name,
        metavar="best|last|STEP",
        help="weights of a checkpoint (default: those that the run ended with)",
    )
    parser.add_argument("--model", default=None, metavar="MODULE:FUNCTION", help="the builder of a net of your own")


@dataclass(frozen=True)
class SavedNet:
    """A net with its weights, and images that it was not trained on.

    Attributes
    ----------
    model : Layer
    images, labels : arrays
        Images as they are stored, and the net's numbers of their classes.
    part : str
        Which images these are, in words.
    scale : float
    transform : Transform or None
        How images are prepared.
    class_names : tuple of str
        Those of the net, in its order.
    data : str
        Name of the data.
    """

    model: Layer
    images: Images
    labels: HostArray
    part: str
    scale: float
    transform: AnyTransform | None
    class_names: tuple[str, ...]
    data: str

    def loader(self, batch_size: int = 256) -> DataLoader:
        """Batches of all images, prepared, in order."""
        options: dict[str, Any] = {"shuffle": False, "scale": self.scale, "transform": self.transform}
        return DataLoader(self.images, self.labels, batch_size, **options)

    def sample(self, index: int) -> HostArray:
        """One image, prepared: ``(1, C, H, W)``."""
        one = DataLoader(
            self.images[index : index + 1],
            self.labels[index : index + 1],
            1,
            shuffle=False,
            scale=self.scale,
            transform=self.transform,
            backend="numpy",
        )
        ((x, _),) = one
        return np.asarray(x)


@contextmanager
def without_overflow_warnings() -> Iterator[None]:
    """Suppress NumPy's warnings of overflow and NaN; the caller checks for NaN and reports it in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def open_net(options: argparse.Namespace) -> SavedNet:
    """The net in a folder, with the images that the options name, or else those of the run.

    Raises
    ------
    UsageError, ValueError, OSError
        If something is missing or does not fit together.
    """
    backend = open_backend(options.backend, options.numerics)
    folder = Path(options.folder)
    weights, about, path = read_weights(folder, options.checkpoint)
    model, about = rebuild(about, path, options.model, backend)
    with without_overflow_warnings():
        load_weights(model, weights, path)
    source = options.data or _data_of_run(folder, about)
    # Image files may have any size.
    size = tuple(about["image"][1:]) if Path(source).is_dir() else None
    data = load_dataset(source, image_size=size, classes=about["classes"])
    if options.data is None and data.fingerprint != about.get("fingerprint"):
        raise UsageError(
            f"{source} has changed since the net was trained on it, so its held-out part may be another; add "
            f"--data {source} to measure on it all the same"
        )
    if list(data.image) != about["image"]:
        raise UsageError(
            f"the images of {data.name} are {_size(data.image)}, this model expects {_size(about['image'])}"
        )
    images, labels, part = untrained_images(data, about)
    labels = labels_by_name(data, labels, about["class_names"])
    normalise = about["normalise"]
    return SavedNet(
        model,
        images,
        labels,
        part,
        about["scale"],
        Normalise(normalise["mean"], normalise["std"]) if normalise else None,
        about["class_names"],
        data.name,
    )


def untrained_images(data: Dataset, about: dict[str, Any]) -> tuple[Images, HostArray, str]:
    """Images on which the net was not trained: the held-out part, or all images of a test set of other data."""
    if data.whole_is_test and data.fingerprint != about.get("fingerprint"):
        return *data.whole(), f"all of {data.name}"
    return data.x_test, data.y_test, f"held-out part of {data.name}"


def _data_of_run(folder: Path, about: dict[str, Any]) -> str:
    """The data that a net was trained on, by its run's configuration."""
    path, name = folder / CONFIG, about.get("data")
    if not path.exists():
        if name == "digits":
            return "digits"
        raise UsageError(f"there is no {path} to say which data the net was trained on ({name}); add --data")
    source = config_file.read(path).get("data")
    if not isinstance(source, str):
        raise UsageError(f"{path} names no data; add --data")
    if source != "digits" and not Path(source).exists():
        raise UsageError(
            f"the data of the run, {source}, is not there ({path} names it as xpnn train was called, perhaps from "
            "another folder); add --data"
        )
    return source


def _size(image: Any) -> str:
    return " x ".join(map(str, image))
