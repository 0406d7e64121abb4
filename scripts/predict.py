"""Apply a trained net, on any backend: accuracy and confusion matrix."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import get_backend
from ..backends.backend import NUMERICS
from ..interop import safetensors
from ..layers.base import Layer
from ..layers.models import BUILDERS
from ..training import fit
from ..training.data import DataLoader
from ..training.datasets import Dataset, Images, check_labels, load_dataset
from .errors import UsageError, preparing
from .train import MODEL


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn predict`` takes."""
    parser.add_argument("folder", metavar="DIR", help="what xpnn train wrote")
    parser.add_argument("--data", default="digits", metavar="digits|FILE.npz|DIR", help="images and labels")
    parser.add_argument("--backend", default="auto", help="numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto")
    parser.add_argument("--numerics", default=None, choices=NUMERICS, help="exact: the same bits on every backend")


def run(options: argparse.Namespace) -> None:
    """Print accuracy and confusion matrix."""
    with preparing():
        backend = get_backend(options.backend, numerics=options.numerics)
        path = Path(options.folder) / MODEL
        if not path.is_file():
            raise UsageError(f"no {MODEL} in {options.folder}; name a folder that xpnn train wrote")
        weights, about = safetensors.read(path)
        model, about = rebuild(about, str(path))
        model.to(backend).load_state_dict(weights)
        size = about["image"][1], about["image"][2]
        data = load_dataset(options.data, image_size=size if Path(options.data).is_dir() else None)
        if list(data.image) != about["image"]:
            raise UsageError(
                f"the images of {data.name} are {_size(data.image)}, this model takes {_size(about['image'])}"
            )
        x, y, part = choose(data, about)
        check_labels(y, about["classes"], f"labels of {data.name}")

    batches = DataLoader(x, y, 256, shuffle=False, scale=about["scale"], backend="numpy")
    predicted = np.concatenate([np.argmax(fit.predict(model, images), axis=1) for images, _ in batches])
    matrix = confusion(y, predicted, about["classes"])
    right = int(np.trace(matrix))
    print(f"{part}: {len(y)} images, {right} right, accuracy {right / len(y):.4%}")
    print(format_matrix(matrix))


def rebuild(about: dict[str, Any], path: str) -> tuple[Layer, dict[str, Any]]:
    """The net that a file describes, its weights not yet filled in."""
    try:
        image, classes = tuple(int(n) for n in about["image"]), int(about["classes"])
        build, scale = BUILDERS[about["model"]], float(about["scale"])
        model = build(image, classes)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not say which net it holds ({error!r}); was it written by xpnn train?") from None
    return model, {**about, "image": list(image), "classes": classes, "scale": scale}


def choose(data: Dataset, about: dict[str, Any]) -> tuple[Images, np.ndarray[Any, Any], str]:
    """What to measure on: never images that the model was trained on, all images of other data."""
    if data.whole_is_test and data.fingerprint != about.get("fingerprint"):
        return *data.whole(), f"all of {data.name}"
    return data.x_test, data.y_test, f"held-out part of {data.name}"


def confusion(y: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], classes: int) -> np.ndarray[Any, Any]:
    """Counts ``(classes, classes)``: true class by row, predicted class by column."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def format_matrix(matrix: np.ndarray[Any, Any]) -> str:
    """The matrix as text, with its classes."""
    width = max(len(str(int(matrix.max()))), len(str(len(matrix) - 1))) + 1
    head = "true \\ predicted"
    lines = [head + "".join(f"{c:>{width}}" for c in range(len(matrix)))]
    lines += [f"{c:>{len(head)}}" + "".join(f"{n:>{width}}" for n in row) for c, row in enumerate(matrix)]
    return "\n".join(lines)


def _size(image: Any) -> str:
    return " x ".join(map(str, image))
