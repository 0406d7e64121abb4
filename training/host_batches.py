"""The batches of a `DataLoader` on the host: samples taken, scaled and changed by transforms."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..backends import Generator
from ..backends.inputs import is_plain_numpy
from ..common import checks
from .augment.targets import has_image_axes, require_pair
from .augment.transform import AnyTransform, Transform, apply_pair
from .images import Images
from .samples import take_samples

HostBatch: TypeAlias = list[NDArray[Any]]


def require_transform(transform: Any) -> None:
    """Raise `ValueError` unless a transform is a callable that is no class, or None."""
    if transform is not None and (not callable(transform) or inspect.isclass(transform)):
        hint = f"; make an object of it: {transform.__name__}()" if inspect.isclass(transform) else ""
        raise ValueError(
            f"transform must be a callable of a batch and a generator, got {checks.shown(transform)}{hint}"
        )


def paired_input(arrays: Sequence[Images], transforms: Sequence[AnyTransform | None], joint: bool | None) -> int | None:
    """Number of the input whose transform changes the targets, the last of ``arrays``, too; None if none does.

    Raises
    ------
    TypeError, ValueError
        If a transform can't change both, or moves pixels and it is not known whether those of the targets move too.
    """
    *inputs, target = (tuple(array.shape) for array in arrays)
    if joint is False:
        return None
    with_axes = [number for number, shape in enumerate(inputs) if has_image_axes(shape, target)]
    if joint and not with_axes:
        raise ValueError(
            f"joint=True needs targets of the height and width of the images, (N, H, W) or (N, K, H, W), got {target} "
            f"for images {inputs[0]}"
        )
    chosen = [number for number in with_axes if transforms[number] is not None]
    for number, transform in enumerate(transforms):
        if transform is not None and (len(inputs) == 1 or number in chosen[:1]):
            require_pair(transform, inputs[number], target)
    if len(inputs) > 1 and chosen and not joint:
        raise TypeError(
            "x has several inputs and y the height and width of one of them; say with joint=True that one random "
            "change is made of all of a sample, or with joint=False that y is left as it is"
        )
    return chosen[0] if chosen else None


def make_batch(
    arrays: Sequence[Images],
    index: Any,
    scales: Sequence[float | None],
    transforms: Sequence[AnyTransform | None],
    generators: Callable[[int], Generator],
    paired: int | None,
) -> HostBatch:
    """The samples at an index, prepared; ``generators(i)`` makes the generator of the transform of input ``i``."""
    *inputs, target = (take_samples(array, index) for array in arrays)
    for number, (scale, transform) in enumerate(zip(scales, transforms, strict=True)):
        x = inputs[number]
        if scale is not None:
            x = np.multiply(x, scale, dtype=np.float32, casting="same_kind")
        if transform is not None:
            x, target = _transformed(
                transform, x.astype(np.float32, copy=False), target, generators(number), number == paired
            )
        inputs[number] = x
    return [*inputs, target]


def _transformed(
    transform: AnyTransform, x: NDArray[Any], y: NDArray[Any], generator: Generator, is_paired: bool
) -> HostBatch:
    both = list(apply_pair(transform, x, y, generator)) if is_paired else [transform(x, generator), y]
    for changed in both:
        if not isinstance(changed, np.ndarray) or not is_plain_numpy(type(changed)) or len(changed) != len(x):
            raise ValueError(
                f"{transform!r} must return an array of as many samples as its batch, {len(x)}, got "
                f"{getattr(changed, 'shape', type(changed).__name__)}"
            )
    return both


def name_of(transform: Any) -> Any:
    """A transform, or a tuple of them, as text for a checkpoint."""
    if isinstance(transform, tuple):
        return [name_of(each) for each in transform]
    return repr(transform) if transform is None or isinstance(transform, Transform) else type(transform).__name__
