"""The interface of transforms, their composition, and which of them apply in evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from numpy.typing import NDArray

from ...backends import Generator
from ...backends.inputs import host_data, is_plain_numpy
from ...common import checks

Batch: TypeAlias = NDArray[Any]
AnyTransform: TypeAlias = Callable[[Batch, Generator], Batch]


class Transform(ABC):
    """A change of a batch of images. `xpnn.augment` describes the rules that subclasses must follow.

    Attributes
    ----------
    moves_pixels : bool
        Whether pixels may change their position, so that masks must be changed in the same way.
    """

    moves_pixels: ClassVar[bool] = True

    def __call__(self, x: Batch, generator: Generator) -> Batch:
        """Return the changed batch ``(N, C, H, W)``; each image is changed independently."""
        self._require_images(x)
        return self.apply(x, generator)

    def _require_images(self, x: Batch) -> None:
        if not is_plain_numpy(type(x)):
            x = host_data(x, "a batch")
        if x.ndim != 4:
            raise ValueError(f"{self!r}: a batch must have shape (N, C, H, W), got {x.shape}")

    @abstractmethod
    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Return the changed batch, whose shape has been checked."""

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Return the changed images, and the target with its pixels moved in the same way."""
        if self.moves_pixels:
            raise TypeError(no_pair_message(self))
        return self(x, generator), target

    def evaluation(self) -> "Transform":
        """The part of this transform that applies in evaluation: nothing, unless it is deterministic."""
        return Compose()


class Compose(Transform):
    """Apply transforms one after the other; without any, images are unchanged.

    >>> Compose(PadAndCrop(4), Flip(), Normalise(0.5, 0.25)).evaluation()
    Compose(Normalise([0.5], [0.25]))
    """

    def __init__(self, *transforms: AnyTransform) -> None:
        for transform in transforms:
            if not callable(transform):
                raise TypeError(f"Compose: each transform must be callable, got {checks.shown(transform)}")
        self.transforms = transforms

    def __call__(self, x: Batch, generator: Generator) -> Batch:
        """Apply all transforms; each checks its own input."""
        return self.apply(x, generator)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Apply all transforms; each draws where the one before it stopped."""
        for transform in self.transforms:
            x = transform(x, generator)
        return x

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Apply all transforms to images and target."""
        for transform in self.transforms:
            x, target = apply_pair(transform, x, target, generator)
        return x, target

    def evaluation(self) -> Transform:
        """Only the transforms that apply in evaluation."""
        parts = (evaluation(transform) for transform in self.transforms)
        return Compose(*(part for part in parts if part is not None))

    def __len__(self) -> int:
        return len(self.transforms)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


def evaluation(transform: AnyTransform | None) -> AnyTransform | None:
    """The part of a transform that applies in evaluation, or None.

    Raises
    ------
    TypeError
        For a callable without a method ``evaluation``, such as a function.
    """
    if transform is None:
        return None
    method = getattr(transform, "evaluation", None)
    if not callable(method):
        raise TypeError(
            f"{transform!r} does not say what of it belongs to evaluation: make it a class with a method "
            "evaluation(), as nn.augment.Transform has"
        )
    part: AnyTransform = method()
    return None if isinstance(part, Compose) and not len(part) else part


def evaluation_or_all(transform: AnyTransform | None) -> AnyTransform | None:
    """As `evaluation`, but a callable without a method ``evaluation`` is returned unchanged."""
    if isinstance(transform, Compose):
        parts = [part for part in map(evaluation_or_all, transform.transforms) if part is not None]
        return Compose(*parts) if parts else None
    return evaluation(transform) if callable(getattr(transform, "evaluation", None)) else transform


def apply_pair(transform: AnyTransform, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
    """Return the changed images, and targets of the same height and width with their pixels moved in the same way."""
    pair = getattr(transform, "pair", None)
    if not callable(pair):
        raise TypeError(no_pair_message(transform))
    changed, moved = pair(x, target, generator)
    return changed, moved


def no_pair_message(transform: AnyTransform) -> str:
    """The message for a transform that does not declare what it does to a mask."""
    name = repr(transform) if isinstance(transform, Transform) else getattr(transform, "__qualname__", repr(transform))
    return (
        f"{name} does not say what becomes of targets that have the images' height and width: make it a class with a "
        "method pair(x, target, generator) that changes both, or a subclass of nn.augment.Transform with "
        "moves_pixels = False where no pixel moves"
    )
