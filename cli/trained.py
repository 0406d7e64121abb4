"""A net that was trained, opened again with images to try it on.

Nothing in the folder is believed: what a file of weights says of its net is checked entry by entry, weights that are no
numbers are refused, and classes are those of the net, to which classes of the data are matched by name.
"""

import argparse
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, to_host
from ..common.checks import integer, is_number
from ..common.files import file_size
from ..interop import safetensors
from ..layers.core.layer import Layer
from ..layers.models import BUILDERS
from ..training.augment import Compose, Normalise
from ..training.augment.transform import AnyTransform
from ..training.checkpoint_file import Checkpoint, CheckpointError
from ..training.checkpoints import Checkpoints
from ..training.data_loader import DataLoader
from ..training.datasets import Dataset, Images, check_labels, load_dataset
from . import build, config
from .backend_option import add_backend, add_numerics, open_backend
from .errors import UsageError, text
from .run_folder import CHECKPOINTS, MODEL

Host = np.ndarray[Any, Any]
# What no net of classes exceeds; names of as many are made where a file has none.
_MOST_CLASSES = 1 << 20
_MOST_PIXELS = 1 << 16
_LISTED = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what a command takes that opens a trained net."""
    parser.add_argument("folder", type=text, metavar="DIR", help="what xpnn train wrote")
    parser.add_argument(
        "--data",
        default=None,
        type=text,
        metavar="digits|FILE.npz|DIR",
        help="images and labels (default: those of the run)",
    )
    parser.add_argument(
        "--checkpoint",
        default=None,
        type=which_checkpoint,
        metavar="best|last|STEP",
        help="weights of a checkpoint (default: those that the run ended with)",
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
        Images as they come, and the net's numbers of their classes.
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


@contextmanager
def quietly() -> Iterator[None]:
    """Without NumPy's warnings of overflow and NaN, which are looked for and told in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def which_checkpoint(text: str) -> str | int:
    """An argument that is ``best``, ``last`` or a step."""
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"takes best, last or a step of which there is a checkpoint, got {text!r}")


def open_trained(options: argparse.Namespace) -> Trained:
    """The net in a folder, on a backend, with the images that the options name, or those of the run.

    Raises
    ------
    UsageError, ValueError, OSError
        Where something is missing or does not fit together.
    """
    backend = open_backend(options.backend, options.numerics)
    folder = Path(options.folder)
    weights, about, path = _read(folder, options.checkpoint)
    model, about = rebuild(about, path, options.model, backend)
    with quietly():
        model.load_state_dict(weights)
    _require_numbers(model, path)
    source = options.data or _own_data(folder, about)
    # Images in files come in any size.
    size = tuple(about["image"][1:]) if Path(source).is_dir() else None
    data = load_dataset(source, image_size=size, classes=about["classes"])
    if options.data is None and data.fingerprint != about.get("fingerprint"):
        raise UsageError(
            f"{source} has changed since the net was trained on it, so its held-out part may be another; add "
            f"--data {source} to measure on it all the same"
        )
    if list(data.image) != about["image"]:
        raise UsageError(f"the images of {data.name} are {_size(data.image)}, this model takes {_size(about['image'])}")
    images, labels, part = choose(data, about)
    labels = matched(data, labels, about["class_names"])
    normalise = about["normalise"]
    return Trained(
        model,
        images,
        labels,
        part,
        about["scale"],
        Normalise(normalise["mean"], normalise["std"]) if normalise else None,
        about["class_names"],
        data.name,
    )


def describe(model: str, data: Dataset, transform: AnyTransform | None = None) -> dict[str, Any]:
    """What `xpnn predict` needs to build the net again and to prepare images for it."""
    steps = transform.transforms if isinstance(transform, Compose) else (transform,)
    normalise = next((step for step in steps if isinstance(step, Normalise)), None)
    return {
        "model": model,
        "image": list(data.image),
        "classes": data.classes,
        "class_names": list(data.class_names),
        "scale": data.scale,
        "normalise": None if normalise is None else {"mean": list(normalise.mean), "std": list(normalise.std)},
        "data": data.name,
        "fingerprint": data.fingerprint,
    }


def rebuild(
    about: dict[str, Any], path: str, named: str | None = None, backend: Backend | None = None
) -> tuple[Layer, dict[str, Any]]:
    """The net that a file describes, its weights not yet filled in, and the description with all entries checked.

    A file never says which code to run: a net of the user's own is ``named`` by whoever opens it.
    """
    try:
        about = _checked(about)
    except (KeyError, TypeError, ValueError) as error:
        told = f"no {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UsageError(f"{path} does not say which net it holds ({told}); was it written by xpnn train?") from None
    name, image = about["model"], about["image"]
    if ":" in name and named is None:
        raise UsageError(f"{path} holds a net of your own, {name}; add --model {name} to run that code")
    if ":" not in name and name not in BUILDERS:
        raise UsageError(f"{path} does not say which net it holds ({name!r}); was it written by xpnn train?")
    return build.net(named or name, (image[0], image[1], image[2]), about["classes"], backend), about


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    """A description of a net, as `describe` makes it; KeyError, TypeError or ValueError for anything else."""
    channels, height, width = (integer("image", n, 1, _MOST_PIXELS) for n in about["image"])
    classes = integer("classes", about["classes"], 1, _MOST_CLASSES)
    if not isinstance(about["model"], str):
        raise ValueError(f"model is {about['model']!r}")
    scale = about["scale"]
    if not is_number(scale) or not isfinite(scale) or scale <= 0.0:
        raise ValueError(f"scale is {scale!r}")
    names = about.get("class_names")
    if names is None:
        names = list(map(str, range(classes)))
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("class_names is no list of names")
    if len(names) != classes or len({*names}) != classes:
        raise ValueError(f"class_names has {len({*names})} names of {classes} classes")
    normalise = about.get("normalise")
    if normalise is not None:
        if not isinstance(normalise, dict) or not all(
            isinstance(normalise[name], list) and all(map(is_number, normalise[name])) for name in ("mean", "std")
        ):
            raise ValueError("normalise has no numbers as mean and std")
        if len(Normalise(normalise["mean"], normalise["std"]).mean) not in (1, channels):
            raise ValueError(f"normalise is for {len(normalise['mean'])} channels of {channels}")
    return {
        **about,
        "image": [channels, height, width],
        "classes": classes,
        "class_names": tuple(names),
        "scale": float(scale),
        "normalise": normalise,
    }


def _read(folder: Path, which: str | int | None) -> tuple[dict[str, Host], dict[str, Any], str]:
    """Weights, what is said of their net, and the file that they are of."""
    path = folder / MODEL
    try:
        file_size(path)
    except FileNotFoundError as error:
        there = Checkpoints(folder / CHECKPOINTS).steps()
        if which is None or not there:
            hint = (
                "add --checkpoint last, since the run has not ended" if there else "name a folder that xpnn train wrote"
            )
            reason = str(error).partition(": ")[2]
            raise UsageError(f"no {MODEL} in {folder}{f' ({reason})' if reason else ''}; {hint}") from None
        found = _checkpoint(folder, which)
        return found.weights, _description(folder, found), str(found.path)
    weights, about = safetensors.read(path)
    if which is None:
        return weights, about, str(path)
    found = _checkpoint(folder, which)
    _require_same_run(found, about.get("fingerprint"))
    return found.weights, about, str(found.path)


def _checkpoint(folder: Path, which: str | int) -> Checkpoint:
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    try:
        if not checkpoints.steps():
            raise UsageError(f"no checkpoint in {checkpoints.folder}")
        if isinstance(which, int):
            return checkpoints.read(which)
        found = checkpoints.best() if which == "best" else checkpoints.read(checkpoints.steps()[-1])
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    if found is None:
        raise UsageError(f"no epoch of {folder} has ended, so none is the best; add --checkpoint last")
    return found


def _description(folder: Path, found: Checkpoint) -> dict[str, Any]:
    """What the file of weights of a run that has not ended would say of its net."""
    options = config.read(folder / config.CONFIG)
    source, side = options.get("data"), options.get("image-size")
    if not isinstance(source, str) or not isinstance(options.get("model"), str):
        raise UsageError(f"{folder / config.CONFIG} names no data or no model")
    data = load_dataset(source, image_size=None if side is None else (side, side))
    _require_same_run(found, data.fingerprint)
    return describe(options["model"], data, Normalise.of(data) if options.get("normalise") is True else None)


def _require_same_run(found: Checkpoint, fingerprint: object) -> None:
    about = found.facts.get("about")
    told = about.get("data") if isinstance(about, dict) else None
    if not isinstance(fingerprint, str) or told != data_of(fingerprint):
        raise UsageError(f"{found.path} is of a run on other data than this one's")


def data_of(fingerprint: str) -> str:
    """What checkpoints say of the data that they were trained on."""
    return f"that of SHA-256 {fingerprint[:16]}"


def _require_numbers(model: Layer, path: str) -> None:
    bad = []
    for name, array in model.state_dict().items():
        host = to_host(array)
        if host.dtype.kind == "f" and not np.isfinite(host).all():
            bad.append(f"{name} in {np.sum(~np.isfinite(host))} of {host.size} values")
    if bad:
        more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise UsageError(f"{path} holds NaN or infinity: {', '.join(bad[:_LISTED])}{more}; nothing can be computed")


def _own_data(folder: Path, about: dict[str, Any]) -> str:
    """The data that a net was trained on, by its run's configuration."""
    path, name = folder / config.CONFIG, about.get("data")
    if not path.exists():
        if name == "digits":
            return "digits"
        raise UsageError(f"there is no {path} to say which data the net was trained on ({name}); add --data")
    source = config.read(path).get("data")
    if not isinstance(source, str):
        raise UsageError(f"{path} names no data; add --data")
    if source != "digits" and not Path(source).exists():
        raise UsageError(
            f"the data of the run, {source}, is not there ({path} names it as xpnn train was told, perhaps from "
            "another folder); add --data"
        )
    return source


def matched(data: Dataset, labels: Host, known: tuple[str, ...]) -> Host:
    """The net's numbers of the classes of images, found by their names; by number where the data has no names.

    Raises
    ------
    UsageError
        Where the data has images of a class whose name the net does not know.
    """
    numbered = known == tuple(map(str, range(len(known))))
    if not data.named:
        check_labels(labels, len(known), f"labels of {data.name}")
        if not numbered:
            first = ", ".join(f"{label} is {name}" for label, name in enumerate(known[:_LISTED]))
            print(f"{data.name} has no names of classes; by number {first}", file=sys.stderr)
        return labels
    # Names of folders are spelt in two ways in Unicode, by the system that made them.
    places = {unicodedata.normalize("NFC", name): label for label, name in enumerate(known)}
    found = [places.get(unicodedata.normalize("NFC", name), -1) for name in data.class_names]
    shown = np.unique(data.labels()).tolist()
    if unknown := [data.class_names[label] for label in shown if found[label] < 0]:
        numbers = "by number only, " if numbered else ""
        raise UsageError(
            f"{data.name} has class {_listed(unknown)}, which this model does not know; its classes are {numbers}"
            f"{_listed(known)}"
        )
    translated: Host = np.array(found, np.int64)[labels]
    return translated


def choose(data: Dataset, about: dict[str, Any]) -> tuple[Images, Host, str]:
    """What to measure on: never images that the model was trained on, all images of other data."""
    if data.whole_is_test and data.fingerprint != about.get("fingerprint"):
        return *data.whole(), f"all of {data.name}"
    return data.x_test, data.y_test, f"held-out part of {data.name}"


def confusion(y: Host, predicted: Host, classes: int) -> Host:
    """Counts ``(classes, classes)``: true class by row, predicted class by column."""
    counts: Host = np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def _listed(names: Any) -> str:
    """``a, b, c and 5 more``."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _size(image: Any) -> str:
    return " x ".join(map(str, image))
