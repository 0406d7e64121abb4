"""Normalisation of images by mean and standard deviation of each channel."""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Protocol

import numpy as np

from ...backends import Generator
from ...common import checks
from ..images import Images, chunks
from .transform import Batch, Transform


class TrainingImages(Protocol):
    """The attributes that `Normalise.of` reads: a `Dataset` has them."""

    @property
    def x_train(self) -> Images:
        """Images for training."""

    @property
    def scale(self) -> float:
        """The factor by which they are multiplied."""


class Normalise(Transform):
    """``(x - mean) / std`` for each channel; the same in training and evaluation.

    Parameters
    ----------
    mean, std : number or sequence of numbers
        One number, or one for each channel, for images as the batch holds them: scaled by `Dataset.scale`.
    """

    moves_pixels = False

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = _by_channel("mean", mean), _by_channel("std", std, above=0)
        if len(self.mean) != len(self.std):
            raise ValueError(f"std must be as many numbers as mean, {len(self.mean)}, got {len(self.std)}")

    @classmethod
    def of(cls, data: TrainingImages) -> "Normalise":
        """Use mean and standard deviation of the training images of a dataset; the latter is 1 for a constant channel.

        Both are rounded to twelve digits, which are the same on all machines: the order of sums may differ.
        """
        count = 0
        mean: Any = 0.0
        squares: Any = 0.0
        for chunk in chunks(data.x_train):
            values = chunk.astype(np.float64)
            n = values.size // values.shape[1]
            chunk_mean = values.mean(axis=(0, 2, 3))
            difference = chunk_mean - mean
            # Sums of squares about the means so far, not about 0, which would cancel.
            values -= chunk_mean[:, None, None]
            within = np.square(values).sum(axis=(0, 2, 3))
            squares = squares + within + difference * difference * (count * n / (count + n))
            mean = mean + difference * (n / (count + n))
            count += n
        std = [sqrt(square / count) for square in squares.tolist()]
        # A deviation below the resolution of float32 at the mean is the rounding of a constant.
        varies = [deviation > 2.0**-24 * abs(centre) for deviation, centre in zip(std, mean.tolist(), strict=True)]
        std = [deviation * data.scale if differs else 1.0 for deviation, differs in zip(std, varies, strict=True)]
        return cls([_rounded(each * data.scale) for each in mean.tolist()], list(map(_rounded, std)))

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws nothing."""
        if len(self.mean) not in (1, x.shape[1]):
            raise ValueError(f"{self!r}: images must have {len(self.mean)} channels, got {x.shape[1]}")
        mean, std = (np.array(each, x.dtype)[:, None, None] for each in (self.mean, self.std))
        y: Batch = (x - mean) / std
        return y

    def evaluation(self) -> Transform:
        """This transform itself."""
        return self

    def __repr__(self) -> str:
        return f"Normalise({list(self.mean)!r}, {list(self.std)!r})"


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _by_channel(name: str, value: float | Sequence[float], above: float | None = None) -> tuple[float, ...]:
    """Floats from a number, or from a sequence or vector with one for each channel."""
    if checks.is_number(value):
        return (float(checks.number(name, value, above=above)),)
    given: Any = value.tolist() if isinstance(value, np.ndarray) else value
    given = given if checks.is_sequence(given) else (given,)
    if not given:
        raise ValueError(f"{name} must be a number, or one for each channel, got {checks.shown(value)}")
    return tuple(map(float, checks.numbers(name, given, len(given), above=above)))
