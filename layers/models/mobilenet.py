"""MobileNetV2 for small images: inverted residual blocks with depthwise convolutions.

A block increases the number of channels by a 1x1 convolution, filters each channel by a depthwise 3x3 convolution, and
reduces the channels by a 1x1 convolution without activation. If input and output have the same shape, it has a
shortcut. Unlike the paper's, it uses ReLU instead of ReLU6, which is meant for low-precision arithmetic, and the first
strides are 1.

Source: M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
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

# Expansion factor, channels at width 32, number of blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(
    image: tuple[int, int, int],
    classes: int,
    width: int = 32,
    stages: tuple[tuple[int, int, int, int], ...] = STAGES,
    **placement: Unpack[Placement],
) -> Sequential:
    """MobileNetV2 for images ``(C, H, W)``; all channels are proportional to ``width``, 32 in the paper."""
    (depth, _, _), classes, width = image_shape(image), count("classes", classes), count("width", width)
    layers: list[Layer] = [*_convolution(depth, width, 3)]
    channels = width
    for expansion, base, blocks, stride in stages:
        out = max(1, base * width // 32)
        for i in range(blocks):
            layers.append(inverted_residual(channels, out, stride if i == 0 else 1, expansion))
            channels = out
    head = 1280 * width // 32
    layers += _convolution(channels, head, 1)
    return Sequential(*layers, GlobalAvgPool(), Flatten(), Dense(head, classes), **placement)


def inverted_residual(channels: int, out: int, stride: int, expansion: int) -> Layer:
    """Expand, filter each channel, project; with a shortcut if input and output have the same shape."""
    wide = channels * expansion
    widen = _convolution(channels, wide, 1) if expansion != 1 else []
    narrow = [Conv2d(wide, out, 1, bias=False), BatchNorm2d(out)]
    body = Sequential(*widen, *_convolution(wide, wide, 3, stride, wide), *narrow)
    return Residual(body) if stride == 1 and channels == out else body


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Layer]:
    padding = kernel // 2
    convolution = Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, BatchNorm2d(out), ReLU()]
