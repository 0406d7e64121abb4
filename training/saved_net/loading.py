"""`load_classifier`: the net in the folder of a run, to classify new images."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...backends import BackendLike, get_backend
from ...common import checks
from ...interop.onnx.from_onnx import from_onnx, is_onnx
from ...layers.core.layer import Layer
from ...layers.models import BUILDERS
from .classifier import Classifier
from .description import SavedNetError, checked_description, unknown_net
from .weights import load_weights, net_file, read_weights


def load_classifier(
    folder: str | os.PathLike[str],
    *,
    checkpoint: str | int | None = None,
    model: Layer | Callable[..., Layer] | None = None,
    backend: BackendLike | None = None,
    numerics: str | None = None,
) -> Classifier:
    """The net that ``xpnn train`` wrote into a folder, for new images.

    Parameters
    ----------
    folder : path
        Of the run.
    checkpoint : {"best", "last"} or int, optional
        The checkpoint of the run whose weights are used, an integer being its step; unless given those that the run
        ended with.
    model : callable or Layer, optional
        For a net of your own: the function that made it, called as in training, ``model(image, classes, backend=...,
        seed=...)``, or the net, which keeps its backend. A folder never decides which code runs.
    backend, numerics
        As for every layer, see `get_backend`.

    Returns
    -------
    Classifier
        With `Classifier.predict`, `Classifier.predict_proba` and `Classifier.class_names`.

    Raises
    ------
    ValueError
        If the folder holds no trained net, or one that is damaged, has NaN in its weights or needs ``model``.
    BackendUnavailable
        If the backend does not work here.

    Examples
    --------
    The class of each image in a folder, and how sure the net is::

        classifier = nn.load_classifier("runs/photos-resnet18-1", backend="auto")
        names = classifier.predict("new")
        probabilities = classifier.predict_proba(["new/1.jpg", "new/2.jpg"])
    """
    path = Path(checks.path("folder", folder))
    if checkpoint not in (None, "best", "last") and not checks.is_integer(checkpoint):
        raise ValueError(f"checkpoint must be 'best', 'last' or a step, got {checks.shown(checkpoint)}")
    if not path.is_dir():
        raise SavedNetError(f"there is no folder {path}; name one that xpnn train wrote")
    weights, about, file = read_weights(path, checkpoint)
    about = checked_description(about, file)
    net = model if isinstance(model, Layer) else _build(about, file, model, backend, numerics)
    if isinstance(model, Layer) and (backend is not None or numerics is not None):
        raise ValueError(
            "model has a backend already; leave backend and numerics out, or give the function that made it"
        )
    load_weights(net, weights, file)
    net.eval()
    return Classifier(net, about)


def _build(
    about: dict[str, Any],
    file: str,
    function: Callable[..., Layer] | None,
    backend: BackendLike | None,
    numerics: str | None,
) -> Layer:
    name = about["model"]
    if function is None:
        if ":" in name and not is_onnx(name):
            raise SavedNetError(f"{file} holds a net of your own, {name}; pass the function that made it as model=")
        if is_onnx(name):
            return from_onnx(net_file(file), (None, *about["image"]), backend=get_backend(backend, numerics=numerics))
        if name not in BUILDERS:
            raise unknown_net(file, repr(name))
        function = BUILDERS[name]
    elif not callable(function):
        raise TypeError(
            f"model must be a function (image, classes, **placement) or a Layer, got {checks.shown(function)}"
        )
    channels, height, width = about["image"]
    where = get_backend(backend, numerics=numerics)
    return checks.instance("model", function((channels, height, width), about["classes"], backend=where, seed=0), Layer)
