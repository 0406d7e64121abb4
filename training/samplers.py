"""Which samples a pass uses, and in which order, where that is not each of them once.

A sampler depends on its seed and the number of the pass only, so a run that is resumed in the middle of a pass goes on
with the same samples.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Generator, get_backend
from ..backends.inputs import host_data
from ..common import checks


class Sampler(ABC):
    """Base of the samplers of `DataLoader`.

    A subclass defines ``__len__``, the number of samples in a pass, and `positions`. Its ``repr`` must name all that
    the positions depend on, because a checkpoint compares it.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Samples in a pass."""

    @abstractmethod
    def positions(self, epoch: int) -> NDArray[np.integer[Any]]:
        """The positions of the samples of pass number ``epoch``, from 0, in their order: ``(len(self),)``."""


class WeightedRandomSampler(Sampler):
    """Draw samples with probabilities proportional to their weights, for example to balance classes.

    Parameters
    ----------
    weights : array_like
        One number >= 0 for each sample, ``(N,)``, not all 0.
    num_samples : int
        How many are drawn for a pass, at least 1.
    replacement : bool
        Whether a sample may be drawn several times in a pass. Without, at most as many samples can be drawn as have
        weights above 0; the weights then decide which come early.
    seed : int
        Pass ``k`` depends on ``seed`` and ``k`` only.

    Raises
    ------
    TypeError, ValueError
        For other weights and numbers.

    Notes
    -----
    Draws without replacement are those of the smallest ``-log(u) / weight`` for uniform u. Source: P. Efraimidis, P.
    Spirakis, "Weighted random sampling with a reservoir", 2006.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([0] * 90 + [1] * 10)
    >>> sampler = WeightedRandomSampler.balanced(labels, 1000, seed=0)
    >>> [int(n) for n in np.bincount(labels[sampler.positions(0)])]
    [529, 471]
    """

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True, *, seed: int = 0) -> None:
        given = host_data(weights, "weights", convert=True)
        if given.ndim != 1 or given.dtype.kind not in "uif" or not len(given):
            raise ValueError(f"weights must be numbers >= 0, one for each sample (N,), got {checks.shown(given)}")
        self.weights = given.astype(np.float64)
        if not np.isfinite(self.weights).all() or (self.weights < 0.0).any() or not (self.weights > 0.0).any():
            raise ValueError("weights must be finite numbers >= 0, not all 0")
        with np.errstate(over="ignore"):
            if not np.isfinite(self.weights.sum()):
                raise ValueError("weights are too large: their sum is infinite")
        self.replacement = checks.flag("replacement", replacement)
        self.num_samples = checks.integer("num_samples", num_samples, 1)
        possible = int(np.count_nonzero(self.weights))
        if not self.replacement and self.num_samples > possible:
            raise ValueError(
                f"num_samples must be at most {possible} without replacement, the number of weights above 0, got "
                f"{num_samples}"
            )
        self.seed = checks.seed("seed", seed)
        self._generator = Generator(self.seed).fold_in("sampler")

    @classmethod
    def balanced(cls, y: Any, num_samples: int | None = None, *, seed: int = 0) -> "WeightedRandomSampler":
        """A sampler that draws each class of the labels ``y (N,)`` equally often, N samples unless given."""
        labels = host_data(y, "y", convert=True)
        if labels.ndim != 1 or labels.dtype.kind not in "ui" or not len(labels):
            raise ValueError(f"y must be classes, integers (N,), got {checks.shown(labels)}")
        _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(1.0 / counts[index], len(labels) if num_samples is None else num_samples, seed=seed)

    def __len__(self) -> int:
        return self.num_samples

    def positions(self, epoch: int) -> NDArray[np.integer[Any]]:
        """The samples of a pass; the same bits on every machine."""
        generator = self._generator.fold_in(epoch)
        if not self.replacement:
            exact = get_backend("numpy", numerics="exact").xp
            uniform = np.asarray(generator.uniform((len(self.weights),), dtype="float64", backend="numpy"))
            possible = np.flatnonzero(self.weights)
            keys = -np.asarray(exact.log(1.0 - uniform[possible])) / self.weights[possible]
            first: NDArray[np.integer[Any]] = possible[np.argsort(keys, kind="stable")[: self.num_samples]]
            return first
        uniform = np.asarray(generator.uniform((self.num_samples,), dtype="float64", backend="numpy"))
        ends = np.cumsum(self.weights)
        found = np.searchsorted(ends, uniform * ends[-1], side="right")
        # Rounding may give the end itself, which belongs to the last sample that can be drawn.
        last = int(np.flatnonzero(self.weights)[-1])
        return np.asarray(np.minimum(found, last))

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]
        once = "" if self.replacement else ", replacement=False"
        return (
            f"WeightedRandomSampler(<{len(self.weights)} weights, SHA-256 {digest}>, {self.num_samples}{once}, "
            f"seed={self.seed})"
        )


def checked_positions(sampler: Sampler, epoch: int, samples: int) -> NDArray[np.integer[Any]]:
    """The positions of a pass of ``samples`` in all.

    Raises
    ------
    ValueError
        If the sampler returns anything but ``len(sampler)`` integers from 0 to ``samples - 1``.
    """
    found = np.asarray(sampler.positions(epoch))
    if found.shape != (len(sampler),) or found.dtype.kind not in "iu":
        raise ValueError(f"{sampler!r} must return {len(sampler)} positions, integers, got {checks.shown(found)}")
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= samples):
        raise ValueError(
            f"{sampler!r} returns positions from {int(found.min())} to {int(found.max())}; those of the samples are 0 "
            f"to {samples - 1}"
        )
    return found
