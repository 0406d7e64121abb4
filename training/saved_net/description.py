"""The description of a net in its file of weights: enough to build the net again and to prepare images for it."""

from math import isfinite
from typing import Any

from ...common.checks import integer, is_number
from ..augment import Compose, Normalise
from ..augment.transform import AnyTransform
from ..datasets import Dataset

# Bounds that no net for images reaches; a description without names gets a name for each class.
_MOST_CLASSES = 1 << 20
_MOST_PIXELS = 1 << 16


class SavedNetError(ValueError):
    """The folder of a run, or what it holds, can't be used; the message says what is wrong."""


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


def checked_description(about: dict[str, Any], path: str) -> dict[str, Any]:
    """The description in a file, if it has the form of one that `describe` makes.

    Raises
    ------
    SavedNetError
        If it has not.
    """
    try:
        return _checked(about)
    except (KeyError, TypeError, ValueError) as error:
        why = f"no {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise unknown_net(path, why) from None


def unknown_net(path: str, why: str) -> SavedNetError:
    """The error for a file that does not describe a net."""
    return SavedNetError(f"{path} does not say which net it holds ({why}); was it written by xpnn train?")


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
