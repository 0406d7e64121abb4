"""Which targets change together with the images, and whether a transform declares how."""

from collections.abc import Sequence

from .transform import AnyTransform, Compose, Transform, no_pair_message


def has_image_axes(image: Sequence[int], target: Sequence[int]) -> bool:
    """Whether targets of a shape ``(N, ...)`` have the spatial axes of a batch ``(N, C, *spatial)``, as masks have."""
    spatial = tuple(image[2:])
    return bool(spatial) and len(image) - 1 <= len(target) <= len(image) and tuple(target[-len(spatial) :]) == spatial


def require_pair(transform: AnyTransform, image: Sequence[int], target: Sequence[int]) -> None:
    """Raise unless a transform can change batches of these two shapes together.

    Raises
    ------
    TypeError
        If the targets have the spatial axes of the images and the transform does not declare what it does to them.
    ValueError
        If the targets have two axes of another size after their first and the transform moves pixels: it can't be known
        which pixels of image and target correspond.
    """
    if isinstance(transform, Compose):
        for each in transform.transforms:
            require_pair(each, image, target)
        return
    ours = transform if isinstance(transform, Transform) else None
    if has_image_axes(image, target):
        if not (callable(getattr(transform, "pair", None)) if ours is None else _declares_masks(ours)):
            raise TypeError(no_pair_message(transform))
    elif ours is not None and ours.moves_pixels and len(image) == 4 and len(target) >= 3:
        raise ValueError(
            f"{transform!r} moves images of {' x '.join(map(str, image[2:]))} pixels and can't move targets of shape "
            f"{tuple(target)} with them: resize the targets to the images; where they don't depend on places in the "
            "image, give a function: transform=lambda x, generator: flip(x, generator)"
        )


def _declares_masks(transform: Transform) -> bool:
    """Whether the class that defines ``apply``, or a subclass of it, also defines what happens to masks."""
    kind = type(transform)
    declaration = "pair" if transform.moves_pixels else "moves_pixels"
    changes, declares = (next(c for c in kind.__mro__ if name in vars(c)) for name in ("apply", declaration))
    return issubclass(declares, changes)
