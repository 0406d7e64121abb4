"""Class labels on the host, and what `NetClassifier` refuses about them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from ...backends import to_host
from ...common.types import Array
from .arrays import is_dispatched


def labels_of(y: Array) -> NDArray[Any]:
    """Checked labels ``(N,)``, on the host."""
    check_classification_targets(y)
    return to_host(y) if is_dispatched(y) else np.asarray(y)


def all_classes(given: Any, before: NDArray[Any] | None) -> NDArray[Any]:
    """The classes of `partial_fit`: those given in its first call, which may be repeated later.

    Raises
    ------
    ValueError
        If there are none in the first call, or others later.
    """
    if given is None:
        if before is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return before
    classes: NDArray[Any] = np.unique(to_host(given) if is_dispatched(given) else np.asarray(given))
    if before is not None and not np.array_equal(classes, before):
        raise ValueError(f"`classes={given!r}` is not the same as on last call to partial_fit, was: {before!r}")
    return classes


def require_two_classes(name: str, present: NDArray[Any]) -> None:
    """Raise `ValueError` for one class only."""
    if len(present) < 2:
        raise ValueError(
            f"{name} needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{present[0]!r}"
        )


def require_same_classes(before: NDArray[Any], now: NDArray[Any]) -> None:
    """Raise `ValueError` if the classes of a warm start are others than before."""
    if not np.array_equal(before, now):
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously got "
            f"{before}, `y` has {now}"
        )


def require_known(labels: NDArray[Any], known: NDArray[Any]) -> None:
    """Raise `ValueError` for labels that are not among the known classes."""
    unknown = np.setdiff1d(labels, known)
    if len(unknown):
        raise ValueError(f"`y` has classes that are not in `classes`, {known}: {unknown}")
