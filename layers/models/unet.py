"""A small U-Net: classes for every pixel.

Each level convolves, goes down by pooling, lets the next level work, comes up by a transposed convolution, and joins
what came up with what it had: a `Parallel` of the identity and the way through below.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.
"""

from typing import Unpack

from ..activations import ReLU
from ..containers.identity import Identity
from ..containers.parallel import Parallel
from ..containers.sequential import Sequential
from ..convolution.conv import Conv2d
from ..convolution.conv_transpose import ConvTranspose2d
from ..core.layer import Layer
from ..core.placement import Placement
from ..normalisation.batch_norm import BatchNorm2d
from ..pool import MaxPool2d
from .arguments import count, image_shape


def unet(
    image: tuple[int, int, int], classes: int, width: int = 32, levels: int = 2, **placement: Unpack[Placement]
) -> Sequential:
    """A U-Net for images ``(C, H, W)``: logits ``(N, classes, H, W)``.

    Parameters
    ----------
    image : tuple of int
    classes : int
    width : int
        Channels of the first level; each level below has twice as many.
    levels : int
        How often the image is halved.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For a height or width that ``levels`` halvings do not divide.
    """
    channels, height, width_px = image_shape(image)
    classes, width, levels = count("classes", classes), count("width", width), count("levels", levels)
    step = 1 << levels
    if height % step or width_px % step:
        raise ValueError(
            f"unet: with {levels} levels images must have multiples of {step} pixels, got {height} x {width_px}"
        )
    return Sequential(_level(channels, width, levels), Conv2d(width, classes, 1), **placement)


def _level(channels: int, width: int, below: int) -> Layer:
    """Two convolutions; with a level below, around it and after it two more."""
    first = _convolutions(channels, width)
    if not below:
        return Sequential(*first)
    through = Sequential(
        MaxPool2d(2), _level(width, 2 * width, below - 1), ConvTranspose2d(2 * width, width, 2, stride=2)
    )
    return Sequential(*first, Parallel(Identity(), through), *_convolutions(2 * width, width))


def _convolutions(channels: int, out: int) -> list[Layer]:
    layers: list[Layer] = []
    for before in (channels, out):
        layers += [Conv2d(before, out, 3, padding=1, bias=False), BatchNorm2d(out), ReLU()]
    return layers
