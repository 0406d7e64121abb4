"""The arguments that all nets take."""

from ...common import checks


def image_shape(image: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height and width of an image."""
    channels, height, width = checks.shape("image", image, 1, "three integers >= 1, (C, H, W)", length=3)
    return channels, height, width


def count(name: str, value: int) -> int:
    """A number of classes, channels or levels."""
    return checks.integer(name, value, 1)
