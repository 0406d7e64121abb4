"""VGG-11 with batch norm and one dense layer after its convolutions.

Source: K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
"""

from typing import Unpack

from ..activations import ReLU
from ..containers.sequential import Sequential
from ..convolution.conv import Conv2d
from ..core.layer import Layer
from ..core.placement import Placement
from ..dense import Dense
from ..normalisation.batch_norm import BatchNorm2d
from ..pool import MaxPool2d
from ..reshaping.flatten import Flatten
from .arguments import count, image_shape

# Channels of the 3x3 convolutions as multiples of the width; a pooling follows each group.
GROUPS = ((1,), (2,), (4, 4), (8, 8), (8, 8))


def vgg11_bn(image: tuple[int, int, int], classes: int, width: int = 64, **placement: Unpack[Placement]) -> Sequential:
    """VGG-11 with batch norm for images ``(C, H, W)`` of at least 32 x 32 pixels.

    Raises
    ------
    ValueError
        For smaller images, for which five poolings would leave no pixel.
    """
    channels, height, width_px = image_shape(image)
    classes, width = count("classes", classes), count("width", width)
    if min(height, width_px) < 32:
        raise ValueError(f"vgg11_bn: images must have at least 32 x 32 pixels, got {height} x {width_px}")
    layers: list[Layer] = []
    for group in GROUPS:
        for times in group:
            out = width * times
            layers += [Conv2d(channels, out, 3, padding=1, bias=False), BatchNorm2d(out), ReLU()]
            channels = out
        layers.append(MaxPool2d(2))
    features = channels * (height // 32) * (width_px // 32)
    return Sequential(*layers, Flatten(), Dense(features, classes), **placement)
