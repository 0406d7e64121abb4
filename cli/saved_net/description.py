"""The description of a net in its file of weights: enough to build the net again and to prepare images for it."""

from math import isfinite
from typing import Any

from ...backends import Backend
from ...common.checks import integer, is_number
from ...layers.core.layer import Layer
from ...layers.models import BUILDERS
from ...training.augment import Compose, Normalise
from ...training.augment.transform import AnyTransform
from ...training.datasets import Dataset
from ..errors import UsageError
from ..net_option import build_net

# Bounds that no net for images reaches; a description without names gets a name for each class.
_MOST_CLASSES = 1 << 20
_MOST_PIXELS = 1 << 16


def describe(model: str, data: Dataset, transform: AnyTransform | None = None) -> dict[str, Any]:
    """The description of a net of that name, trained on that data with that transform."""
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
    """The net that the description ``about`` of a file is of, with initial weights, and the checked description.

    A file never decides which code runs: for a net of the user's own, ``named`` must be given by the user.
    """
    try:
        about = _checked(about)
    except (KeyError, TypeError, ValueError) as error:
        why = f"no {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UsageError(f"{path} does not say which net it holds ({why}); was it written by xpnn train?") from None
    name, image = about["model"], about["image"]
    if ":" in name and named is None:
        raise UsageError(f"{path} holds a net of your own, {name}; add --model {name} to run that code")
    if ":" not in name and name not in BUILDERS:
        raise UsageError(f"{path} does not say which net it holds ({name!r}); was it written by xpnn train?")
    return build_net(named or name, (image[0], image[1], image[2]), about["classes"], backend), about


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    """A description as `describe` makes it; KeyError, TypeError or ValueError for anything else."""
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
