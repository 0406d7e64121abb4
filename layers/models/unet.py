"""A small U-Net, which classifies every pixel of an image.

Each level applies convolutions, then the next level to its pooled output, enlarges the result by a transposed
convolution, and concatenates both: a `Parallel` of the identity and the path through the next level.

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
        Channels of the first level; each further level has twice as many.
    levels : int
        How many times the image is halved.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        Unless height and width are multiples of ``2 ** levels``.
    """
    channels, height, width_px = image_shape(image)
    classes, width, levels = count("classes", classes), count("width", width), count("levels", levels)
    step = 1 << levels
    if height % step or width_px % step:
        raise ValueError(
            f"unet: with {levels} levels image sizes must be multiples of {step}, got {height} x {width_px}"
        )
    return Sequential(_level(channels, width, levels), Conv2d(width, classes, 1), **placement)


def _level(channels: int, width: int, below: int) -> Layer:
    """Two convolutions; if there is a level below, also the path through it and two more convolutions."""
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
