"""Labels of a dataset as a net numbers its classes: found by the names of the classes."""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...training.datasets import Dataset, check_labels
from ..errors import UsageError

HostArray = np.ndarray[Any, Any]
_LISTED = 10


def labels_by_name(data: Dataset, labels: HostArray, known: tuple[str, ...]) -> HostArray:
    """The labels of ``data``, renumbered for a net with the class names ``known``.

    Labels of data without class names stay as they are.

    Raises
    ------
    UsageError
        If the data has images of a class that the net does not know.
    """
    numbered = known == tuple(map(str, range(len(known))))
    if not data.named:
        check_labels(labels, len(known), f"labels of {data.name}")
        if not numbered:
            first = ", ".join(f"{label} is {name}" for label, name in enumerate(known[:_LISTED]))
            print(f"{data.name} has no names of classes; by number {first}", file=sys.stderr)
        return labels
    # Systems spell names of folders in either normal form of Unicode.
    places = {unicodedata.normalize("NFC", name): label for label, name in enumerate(known)}
    found = [places.get(unicodedata.normalize("NFC", name), -1) for name in data.class_names]
    shown = np.unique(data.labels()).tolist()
    if unknown := [data.class_names[label] for label in shown if found[label] < 0]:
        numbers = "by number only, " if numbered else ""
        raise UsageError(
            f"{data.name} has class {listed(unknown)}, which this model does not know; its classes are {numbers}"
            f"{listed(known)}"
        )
    renumbered: HostArray = np.array(found, np.int64)[labels]
    return renumbered


def listed(names: Sequence[str]) -> str:
    """``a, b, c and 5 more``."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
