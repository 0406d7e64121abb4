"""A net that was trained, opened again with images to try it on."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend
from ..interop import safetensors
from ..layers.base import Layer
from ..layers.models import BUILDERS
from ..training.augment import AnyTransform, Normalise
from ..training.data import DataLoader
from ..training.datasets import Dataset, Images, check_labels, load_dataset
from . import build
from .backend_option import add_backend, add_numerics, open_backend
from .errors import UsageError
from .folder import MODEL

Host = np.ndarray[Any, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what a command takes that opens a trained net."""
    parser.add_argument("folder", metavar="DIR", help="what xpnn train wrote")
    parser.add_argument(
        "--data", default=None, metavar="digits|FILE.npz|DIR", help="images and labels (default: digits)"
    )
    parser.add_argument("--model", default=None, metavar="MODULE:FUNCTION", help="your own net, if it is one")
    add_backend(parser)
    add_numerics(parser)


@dataclass(frozen=True)
class Trained:
    """A net with its weights, and images that it was not trained on.

    Attributes
    ----------
    model : Layer
    images, labels : arrays
        Images as they come, and their classes.
    part : str
        Which images these are, in words.
    scale : float
    transform : Transform or None
        How images are prepared.
    class_names : tuple of str
    data : str
        Name of the data.
    """

    model: Layer
    images: Images
    labels: Host
    part: str
    scale: float
    transform: AnyTransform | None
    class_names: tuple[str, ...]
    data: str

    def loader(self, batch_size: int = 256) -> DataLoader:
        """Batches of all images, prepared, in order."""
        options: dict[str, Any] = {"shuffle": False, "scale": self.scale, "transform": self.transform}
        return DataLoader(self.images, self.labels, batch_size, **options)

    def sample(self, index: int) -> Host:
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


def open_trained(options: argparse.Namespace) -> Trained:
    """The net in a folder, on a backend, with the images that the options name.

    Raises
    ------
    UsageError, ValueError, OSError
        Where something is missing or does not fit together.
    """
    backend = open_backend(options.backend, options.numerics)
    path = Path(options.folder) / MODEL
    if not path.is_file():
        raise UsageError(f"no {MODEL} in {options.folder}; name a folder that xpnn train wrote")
    weights, about = safetensors.read(path)
    model, about = rebuild(about, str(path), options.model, backend)
    model.load_state_dict(weights)
    source = options.data or "digits"
    # Images in files come in any size.
    data = load_dataset(source, image_size=tuple(about["image"][1:]) if Path(source).is_dir() else None)
    if list(data.image) != about["image"]:
        raise UsageError(f"the images of {data.name} are {_size(data.image)}, this model takes {_size(about['image'])}")
    images, labels, part = choose(data, about)
    check_labels(labels, about["classes"], f"labels of {data.name}")
    normalise = about.get("normalise")
    return Trained(
        model,
        images,
        labels,
        part,
        about["scale"],
        Normalise(normalise["mean"], normalise["std"]) if normalise else None,
        tuple(about.get("class_names") or map(str, range(about["classes"]))),
        data.name,
    )


def rebuild(
    about: dict[str, Any], path: str, named: str | None = None, backend: Backend | None = None
) -> tuple[Layer, dict[str, Any]]:
    """The net that a file describes, its weights not yet filled in.

    A file never says which code to run: a net of the user's own is ``named`` by whoever opens it.
    """
    try:
        (channels, height, width), classes = map(int, about["image"]), int(about["classes"])
        name, scale = str(about["model"]), float(about["scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not say which net it holds ({error!r}); was it written by xpnn train?") from None
    if ":" in name and named is None:
        raise UsageError(f"{path} holds a net of your own, {name}; add --model {name} to run that code")
    if ":" not in name and name not in BUILDERS:
        raise UsageError(f"{path} does not say which net it holds ({name!r}); was it written by xpnn train?")
    model = build.net(named or name, (channels, height, width), classes, backend)
    return model, {**about, "image": [channels, height, width], "classes": classes, "scale": scale}


def choose(data: Dataset, about: dict[str, Any]) -> tuple[Images, Host, str]:
    """What to measure on: never images that the model was trained on, all images of other data."""
    if data.whole_is_test and data.fingerprint != about.get("fingerprint"):
        return *data.whole(), f"all of {data.name}"
    return data.x_test, data.y_test, f"held-out part of {data.name}"


def confusion(y: Host, predicted: Host, classes: int) -> Host:
    """Counts ``(classes, classes)``: true class by row, predicted class by column."""
    counts: Host = np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def _size(image: Any) -> str:
    return " x ".join(map(str, image))
