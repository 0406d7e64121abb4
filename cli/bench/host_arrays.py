"""Host arrays of both sides: the gradients that are given, and the distance between results."""

from typing import Any

import numpy as np

from ...backends import Backend

HostArray = np.ndarray[Any, Any]


def with_channels_last(b: Backend, array: HostArray) -> Any:
    """The array on the backend, with channels last in memory as the output of a layer has them."""
    if array.ndim != 4:
        return b.asarray(array)
    return b.xp.permute_dims(b.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1))), (0, 3, 1, 2))


def upstream_gradient(like: HostArray) -> HostArray:
    """A gradient for the output of a layer: normal numbers in the shape of ``like``, always the same."""
    return np.asarray(np.random.default_rng(1).standard_normal(like.shape, dtype=np.float32))


def relative_error(ours: list[HostArray], theirs: list[HostArray], share: float = 0.0) -> float:
    """The norm of the difference over the norm of ``theirs``; the largest of all arrays.

    The norm of an array counts as at least ``share`` of that of all together: some gradients are zero but for rounding.
    """
    worst, least = 0.0, 1e-30
    if share:
        least = max(least, share * float(np.sqrt(sum(np.sum(b.astype(np.float64) ** 2) for b in theirs))))
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        wide = b.astype(np.float64)
        error = float(np.linalg.norm((a - wide).ravel())) / max(float(np.linalg.norm(wide.ravel())), least)
        worst = max(worst, error) if error < float("inf") else float("inf")
    return worst
