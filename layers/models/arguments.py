"""Checks of the arguments that all models have."""

from ...common import checks


def image_shape(image: tuple[int, int, int]) -> tuple[int, int, int]:
    """The channels, height and width of an image."""
    channels, height, width = checks.shape("image", image, 1, "three integers >= 1, (C, H, W)", length=3)
    return channels, height, width


def count(name: str, value: int) -> int:
    """A number of classes, channels or levels, at least 1."""
    return checks.integer(name, value, 1)
