"""What is done to a batch of images on the host before it goes to the device: random changes, and normalising.

A transform is called with a batch ``(N, C, H, W)`` in float32 and a `Generator`, and gives a new batch of that form; it
writes to nothing that it was given. All that is random comes from the generator, and `DataLoader` makes one for each
batch of each pass, so a batch has the same bits whichever backend, thread or interruption it meets.

A target may have the images' height and width too: masks ``(N, H, W)`` or ``(N, K, H, W)``, images to be restored. Then
what moves pixels, `Flip` and `PadAndCrop`, moves those of the target along, by the same draws, and what changes values
alone, `Normalise` and `Cutout`, leaves the target as it is. A transform of one's own says what it does: a class with a
method ``pair(x, target, generator)`` changes both, a `Transform` with ``moves_pixels = False`` changes images alone.
Others are refused for such targets.

References
----------
T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017,
arXiv:1708.04552.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..backends import Generator
from ..backends.inputs import host_data, is_plain_numpy
from ..common import checks
from .images import Images, chunks

Batch: TypeAlias = NDArray[Any]
AnyTransform: TypeAlias = Callable[[Batch, Generator], Batch]

__all__ = ["Compose", "Cutout", "Flip", "Normalise", "PadAndCrop", "Transform"]


class Transform(ABC):
    """A change of a batch of images; see the module for what it may do.

    Attributes
    ----------
    moves_pixels : bool
        Whether something of an image may end at another place, so that a mask must follow.
    """

    moves_pixels: ClassVar[bool] = True

    def __call__(self, x: Batch, generator: Generator) -> Batch:
        """The batch ``(N, C, H, W)`` changed, each image on its own."""
        self._require_images(x)
        return self.apply(x, generator)

    def _require_images(self, x: Batch) -> None:
        if not is_plain_numpy(type(x)):
            x = host_data(x, "a batch")
        if x.ndim != 4:
            raise ValueError(f"{self!r}: a batch must have shape (N, C, H, W), got {x.shape}")

    @abstractmethod
    def apply(self, x: Batch, generator: Generator) -> Batch:
        """What a call does, on a batch that was checked."""

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Images changed as by a call, and the target with the images' height and width moved as they are."""
        if self.moves_pixels:
            raise TypeError(unpaired(self))
        return self(x, generator), target

    def evaluation(self) -> "Transform":
        """What of it belongs to evaluation too: nothing, unless it is deterministic."""
        return Compose()


class Flip(Transform):
    """Left and right exchanged in each image with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = checks.number("p", p, least=0, most=1)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws a number for each image."""
        return self._flipped(x, self._chosen(len(x), generator))

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Image and target exchange left and right together."""
        self._require_images(x)
        chosen = self._chosen(len(x), generator)
        return self._flipped(x, chosen), self._flipped(target, chosen)

    def _chosen(self, n: int, generator: Generator) -> NDArray[np.bool_]:
        return np.asarray(generator.uniform((n,), dtype="float32", backend="numpy") < self.p)

    def _flipped(self, batch: Batch, chosen: NDArray[np.bool_]) -> Batch:
        flipped = batch.copy()
        flipped[chosen] = batch[chosen, ..., ::-1]
        return flipped

    def __repr__(self) -> str:
        return f"Flip({self.p!r})"


class PadAndCrop(Transform):
    """Each image moved by up to ``padding`` pixels up or down and left or right, zeros where nothing was.

    The same as cutting the old size out of the image with ``padding`` zeros on each side, at a random place.

    Parameters
    ----------
    padding : int
        At least 0.
    target_fill : number
        What a mask that moves along holds where nothing was, such as the ``ignore_index`` of the loss.
    """

    def __init__(self, padding: int = 4, *, target_fill: float = 0) -> None:
        self.padding = checks.integer("padding", padding, 0)
        self.target_fill = checks.number("target_fill", target_fill)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws a row and a column for each image."""
        rows, columns = self._places(len(x), generator)
        return self._moved(x, rows, columns, 0)

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Image and target are moved alike."""
        self._require_images(x)
        rows, columns = self._places(len(x), generator)
        if target.dtype.kind in "iu" and not _holds(target.dtype, self.target_fill):
            raise ValueError(
                f"{self!r}: a target of {target.dtype.name} can't hold target_fill; give an integer in range"
            )
        return self._moved(x, rows, columns, 0), self._moved(target, rows, columns, self.target_fill)

    def _places(self, n: int, generator: Generator) -> NDArray[np.int64]:
        return _integers(generator, 2, n, 2 * self.padding + 1)

    def _moved(self, batch: Batch, rows: NDArray[np.int64], columns: NDArray[np.int64], fill: float) -> Batch:
        """Images ``(N, C, H, W)`` or masks ``(N, H, W)``."""
        x = batch if batch.ndim > 3 else batch[:, None]
        height, width = x.shape[2:]
        edge = self.padding
        padded = np.full((*x.shape[:2], height + 2 * edge, width + 2 * edge), fill, x.dtype)
        padded[:, :, edge : edge + height, edge : edge + width] = x
        places = sliding_window_view(padded, (height, width), axis=(2, 3))
        return np.ascontiguousarray(places[np.arange(len(x)), :, rows, columns]).reshape(batch.shape)

    def __repr__(self) -> str:
        return f"PadAndCrop({self.padding}{f', target_fill={self.target_fill!r}' if self.target_fill else ''})"


class Cutout(Transform):
    """Zeros in a square of ``size`` pixels, centred anywhere in each image and cut off at its edges.

    A mask keeps what it says of the square.
    """

    moves_pixels = False

    def __init__(self, size: int) -> None:
        self.size = checks.integer("size", size, 1)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws a row and a column for each image."""
        n, _, height, width = x.shape
        centre_rows, centre_columns = _integers(generator, 2, n, np.array([[height], [width]]))
        inside = self._covers(centre_rows, height)[:, :, None] & self._covers(centre_columns, width)[:, None, :]
        return np.where(inside[:, None], np.zeros((), x.dtype), x)

    def _covers(self, centres: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
        first = centres[:, None] - self.size // 2
        places = np.arange(n)
        return (first <= places) & (places < first + self.size)

    def __repr__(self) -> str:
        return f"Cutout({self.size})"


class TrainingImages(Protocol):
    """What `Normalise.of` looks at: a `Dataset`, or what has these two of it."""

    @property
    def x_train(self) -> Images:
        """Images for training."""

    @property
    def scale(self) -> float:
        """What they are multiplied by."""


class Normalise(Transform):
    """``(x - mean) / std``, channel by channel; the same in training and evaluation.

    Parameters
    ----------
    mean, std : number or sequence of numbers
        One, or one for each channel, of images as the batch has them: scaled by `Dataset.scale`.
    """

    moves_pixels = False

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = _by_channel("mean", mean), _by_channel("std", std, above=0)
        if len(self.mean) != len(self.std):
            raise ValueError(f"std must be as many numbers as mean, {len(self.mean)}, got {len(self.std)}")

    @classmethod
    def of(cls, data: TrainingImages) -> "Normalise":
        """With mean and standard deviation of a dataset's training images, to twelve digits; 1 for a constant channel.

        Another machine may add up in another order; twelve digits are the same on all.
        """
        count = 0
        mean: Any = 0.0
        squares: Any = 0.0
        for chunk in chunks(data.x_train):
            values = chunk.astype(np.float64)
            n = values.size // values.shape[1]
            here = values.mean(axis=(0, 2, 3))
            apart = here - mean
            # Sums of squares about the means so far, not about 0, which would cancel.
            values -= here[:, None, None]
            within = np.square(values).sum(axis=(0, 2, 3))
            squares = squares + within + apart * apart * (count * n / (count + n))
            mean = mean + apart * (n / (count + n))
            count += n
        std = [sqrt(square / count) for square in squares.tolist()]
        # Less than float32 tells apart from the mean is the rounding of a constant.
        varies = [deviation > 2.0**-24 * abs(centre) for deviation, centre in zip(std, mean.tolist(), strict=True)]
        std = [deviation * data.scale if of else 1.0 for deviation, of in zip(std, varies, strict=True)]
        return cls([_rounded(each * data.scale) for each in mean.tolist()], list(map(_rounded, std)))

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws nothing."""
        if len(self.mean) not in (1, x.shape[1]):
            raise ValueError(f"{self!r}: images must have {len(self.mean)} channels, got {x.shape[1]}")
        mean, std = (np.array(each, x.dtype)[:, None, None] for each in (self.mean, self.std))
        y: Batch = (x - mean) / std
        return y

    def evaluation(self) -> Transform:
        """Itself."""
        return self

    def __repr__(self) -> str:
        return f"Normalise({list(self.mean)!r}, {list(self.std)!r})"


class Compose(Transform):
    """One transform after the other; without any, images stay as they are.

    >>> Compose(PadAndCrop(4), Flip(), Normalise(0.5, 0.25)).evaluation()
    Compose(Normalise([0.5], [0.25]))
    """

    def __init__(self, *transforms: AnyTransform) -> None:
        for each in transforms:
            if not callable(each):
                raise TypeError(f"Compose: each transform must be callable, got {checks.shown(each)}")
        self.transforms = transforms

    def __call__(self, x: Batch, generator: Generator) -> Batch:
        """One after the other; each checks what it takes."""
        return self.apply(x, generator)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Each draws where the one before it stopped."""
        for each in self.transforms:
            x = each(x, generator)
        return x

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """One after the other; each changes both, or the images alone."""
        for each in self.transforms:
            x, target = paired(each, x, target, generator)
        return x, target

    def evaluation(self) -> Transform:
        """Those that belong to evaluation."""
        kept = (evaluation(each) for each in self.transforms)
        return Compose(*(each for each in kept if each is not None))

    def __len__(self) -> int:
        return len(self.transforms)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


def evaluation(transform: AnyTransform | None) -> AnyTransform | None:
    """What of a transform belongs to evaluation, or None.

    Raises
    ------
    TypeError
        For a function, which does not say.
    """
    if transform is None:
        return None
    kept = getattr(transform, "evaluation", None)
    if not callable(kept):
        raise TypeError(
            f"{transform!r} does not say what of it belongs to evaluation: make it a class with a method "
            "evaluation(), as nn.augment.Transform has"
        )
    found: AnyTransform = kept()
    return None if isinstance(found, Compose) and not len(found) else found


def kept_in_evaluation(transform: AnyTransform | None) -> AnyTransform | None:
    """As `evaluation`, but a function, which does not say what belongs to evaluation, is kept as it is."""
    if isinstance(transform, Compose):
        kept = [each for each in map(kept_in_evaluation, transform.transforms) if each is not None]
        return Compose(*kept) if kept else None
    return evaluation(transform) if callable(getattr(transform, "evaluation", None)) else transform


def goes_along(image: Sequence[int], target: Sequence[int]) -> bool:
    """Whether targets of a shape ``(N, ...)`` have the spatial axes of a batch ``(N, C, *spatial)``, as masks have."""
    spatial = tuple(image[2:])
    return bool(spatial) and len(image) - 1 <= len(target) <= len(image) and tuple(target[-len(spatial) :]) == spatial


def require_paired(transform: AnyTransform, image: Sequence[int], target: Sequence[int]) -> None:
    """Raise unless a transform knows what to do with targets of that shape beside a batch of that shape.

    Raises
    ------
    TypeError
        For targets that go along with the images and a transform that does not say what becomes of them.
    ValueError
        For targets with two axes of another size after their first, and a transform that moves pixels: it can't be told
        where these belong.
    """
    if isinstance(transform, Compose):
        for each in transform.transforms:
            require_paired(each, image, target)
        return
    ours = transform if isinstance(transform, Transform) else None
    if goes_along(image, target):
        if not (callable(getattr(transform, "pair", None)) if ours is None else _says_what_moves(ours)):
            raise TypeError(unpaired(transform))
    elif ours is not None and ours.moves_pixels and len(image) == 4 and len(target) >= 3:
        raise ValueError(
            f"{transform!r} moves images of {_pixels(image)} pixels and can't move targets of shape {tuple(target)} "
            "with them: resize the targets to the images; where they don't depend on places in the image, give a "
            "function: transform=lambda x, generator: flip(x, generator)"
        )


def _says_what_moves(transform: Transform) -> bool:
    """Whether a class, and not one that it changes, says what becomes of a mask."""
    kind = type(transform)
    says = "pair" if transform.moves_pixels else "moves_pixels"
    changes, tells = (next(each for each in kind.__mro__ if name in vars(each)) for name in ("apply", says))
    return issubclass(tells, changes)


def paired(transform: AnyTransform, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
    """Images changed, and targets that have their spatial axes moved along."""
    pair = getattr(transform, "pair", None)
    if not callable(pair):
        raise TypeError(unpaired(transform))
    changed, moved = pair(x, target, generator)
    return changed, moved


def unpaired(transform: AnyTransform) -> str:
    """What to say of a transform that does not say what becomes of a mask."""
    named = repr(transform) if isinstance(transform, Transform) else getattr(transform, "__qualname__", repr(transform))
    return (
        f"{named} does not say what becomes of targets that have the images' height and width: make it a class with a "
        "method pair(x, target, generator) that changes both, or a subclass of nn.augment.Transform with "
        "moves_pixels = False where no pixel moves"
    )


def _pixels(image: Sequence[int]) -> str:
    return " x ".join(map(str, image[2:]))


def _holds(dtype: Any, value: float) -> bool:
    limits = np.iinfo(dtype)
    return int(value) == value and limits.min <= value <= limits.max


def _integers(generator: Generator, draws: int, n: int, below: Any) -> NDArray[np.int64]:
    """Integers ``(draws, n)`` from 0, evenly; ``below`` fits in 32 bits."""
    found: NDArray[np.int64] = (generator.bits((draws, n), "numpy") * below) >> 32
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _by_channel(name: str, value: float | Sequence[float], above: float | None = None) -> tuple[float, ...]:
    """Floats from a number, or one for each channel in a sequence or vector."""
    if checks.is_number(value):
        return (float(checks.number(name, value, above=above)),)
    given: Any = value.tolist() if isinstance(value, np.ndarray) else value
    given = given if checks.is_sequence(given) else (given,)
    if not given:
        raise ValueError(f"{name} must be a number, or one for each channel, got {checks.shown(value)}")
    return tuple(map(float, checks.numbers(name, given, len(given), above=above)))
