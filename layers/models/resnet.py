"""ResNet-18 for small images.

A 3x3 convolution, four stages of two residual blocks with 1, 2, 4 and 8 times ``width`` channels, global average
pooling and a dense layer. Each stage but the first halves the image.

Source: K. He et al., "Deep residual learning for image recognition", 2016, with the stem for CIFAR.
"""

from typing import Unpack

from ..activations import ReLU
from ..containers.residual import Residual
from ..containers.sequential import Sequential
from ..convolution.conv import Conv2d
from ..core.layer import Layer
from ..core.placement import Placement
from ..dense import Dense
from ..normalisation.batch_norm import BatchNorm2d
from ..pool import GlobalAvgPool
from ..reshaping.flatten import Flatten
from .arguments import count, image_shape


def resnet18(image: tuple[int, int, int], classes: int, width: int = 64, **placement: Unpack[Placement]) -> Sequential:
    """ResNet-18 for images ``(C, H, W)``."""
    (depth, _, _), classes, width = image_shape(image), count("classes", classes), count("width", width)
    layers: list[Layer] = [Conv2d(depth, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU()]
    channels = width
    for stage in range(4):
        out = width * (1, 2, 4, 8)[stage]
        layers += [basic_block(channels, out, 1 if stage == 0 else 2), basic_block(out, out, 1)]
        channels = out
    return Sequential(*layers, GlobalAvgPool(), Flatten(), Dense(channels, classes), **placement)


def basic_block(channels: int, out: int, stride: int) -> Residual:
    """Two 3x3 convolutions with batch norm, and a shortcut, which is a 1x1 convolution if the shape changes."""
    body = Sequential(
        Conv2d(channels, out, 3, stride, padding=1, bias=False),
        BatchNorm2d(out),
        ReLU(),
        Conv2d(out, out, 3, padding=1, bias=False),
        BatchNorm2d(out),
    )
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = Sequential(Conv2d(channels, out, 1, stride, bias=False), BatchNorm2d(out))
    return Residual(body, shortcut, ReLU())
