"""Nets for images in the structure of torchvision, so that weights published for these load by name.

A file of such weights, ``resnet18-f37072fd.pth`` for instance, is loaded with ``nn.load(model, path)``, if PyTorch is
installed, or from safetensors. Names and shapes of parameters and buffers are torchvision's; images are RGB, three
channels, scaled as for the training of the weights: usually ``(x - mean) / std`` with mean (0.485, 0.456, 0.406) and
std (0.229, 0.224, 0.225). Initial weights are this library's.

=================  ===========  ======================================================================================
model              parameters   source
=================  ===========  ======================================================================================
``resnet18``       11,689,512   K. He et al., "Deep residual learning for image recognition", 2016
``resnet34``       21,797,672   the same
``resnet50``       25,557,032   the same; the 3x3 convolution of a block has the stride, not the first 1x1
``vgg16_bn``       138,365,992  K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image
                                recognition", 2015, configuration D, with batch norm
``mobilenet_v2``   3,504,872    M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018
=================  ===========  ======================================================================================

Images may have any size, for VGG-16 at least 32 x 32; the weights were trained on 224 x 224.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Unpack

from ..activations import ReLU, ReLU6
from ..containers.residual import Residual
from ..containers.sequential import Sequential
from ..convolution.conv import Conv2d
from ..core.layer import Layer
from ..core.placement import Placement
from ..dense import Dense
from ..dropout import Dropout
from ..normalisation.batch_norm import BatchNorm2d
from ..pool import AdaptiveAvgPool2d, GlobalAvgPool, MaxPool2d
from ..reshaping.flatten import Flatten
from .arguments import count
from .mobilenet import STAGES

# Channels of VGG-16's convolutions; a pooling follows each group.
_VGG_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class _Block(Residual):
    """A residual block whose body adds nothing to the names of its layers: ``conv1``, ``downsample.0``."""

    names: ClassVar[dict[str, str]] = {"body": "", "shortcut": "downsample"}


class _InvertedResidual(Residual):
    """A residual block whose body is named ``conv``."""

    names: ClassVar[dict[str, str]] = {"body": "conv"}


def resnet18(num_classes: int = 1000, **placement: Unpack[Placement]) -> Sequential:
    """ResNet-18: ``(N, 3, H, W)`` to ``(N, num_classes)``."""
    return _resnet(_basic_body, 1, (2, 2, 2, 2), num_classes, placement)


def resnet34(num_classes: int = 1000, **placement: Unpack[Placement]) -> Sequential:
    """ResNet-34: ``(N, 3, H, W)`` to ``(N, num_classes)``."""
    return _resnet(_basic_body, 1, (3, 4, 6, 3), num_classes, placement)


def resnet50(num_classes: int = 1000, **placement: Unpack[Placement]) -> Sequential:
    """ResNet-50: ``(N, 3, H, W)`` to ``(N, num_classes)``."""
    return _resnet(_bottleneck_body, 4, (3, 4, 6, 3), num_classes, placement)


def vgg16_bn(num_classes: int = 1000, **placement: Unpack[Placement]) -> Sequential:
    """VGG-16 with batch norm: ``(N, 3, H, W)`` with ``H, W >= 32`` to ``(N, num_classes)``."""
    layers: list[Layer] = []
    channels = 3
    for group in _VGG_GROUPS:
        for out in group:
            layers += [Conv2d(channels, out, 3, padding=1), BatchNorm2d(out), ReLU()]
            channels = out
        layers.append(MaxPool2d(2))
    dense = [Dense(512 * 7 * 7, 4096), ReLU(), Dropout(0.5), Dense(4096, 4096), ReLU(), Dropout(0.5)]
    parts: dict[str, Layer] = {
        "features": Sequential(*layers),
        "avgpool": AdaptiveAvgPool2d(7),
        "flatten": Flatten(),
        "classifier": Sequential(*dense, Dense(4096, count("num_classes", num_classes))),
    }
    return Sequential(parts, **placement)


def mobilenet_v2(num_classes: int = 1000, **placement: Unpack[Placement]) -> Sequential:
    """MobileNetV2: ``(N, 3, H, W)`` to ``(N, num_classes)``."""
    layers: list[Layer] = [_clipped(3, 32, 3, stride=2)]
    channels = 32
    for (expansion, out, blocks, _), first in zip(STAGES, (1, 2, 2, 2, 1, 2, 1), strict=True):
        for i in range(blocks):
            layers.append(_inverted_residual(channels, out, first if i == 0 else 1, expansion))
            channels = out
    layers.append(_clipped(channels, 1280, 1))
    parts: dict[str, Layer] = {
        "features": Sequential(*layers),
        "avgpool": GlobalAvgPool(),
        "flatten": Flatten(),
        "classifier": Sequential(Dropout(0.2), Dense(1280, count("num_classes", num_classes))),
    }
    return Sequential(parts, **placement)


def _resnet(
    body: Callable[[int, int, int], Sequential],
    expansion: int,
    blocks: Sequence[int],
    num_classes: int,
    placement: Placement,
) -> Sequential:
    """A ResNet with that many blocks in each stage, whose outputs have ``expansion`` times the channels of a body."""
    channels = 64
    parts: dict[str, Layer] = {
        "conv1": Conv2d(3, channels, 7, 2, padding=3, bias=False),
        "bn1": BatchNorm2d(channels),
        "relu": ReLU(),
        "maxpool": MaxPool2d(3, 2, padding=1),
    }
    for stage, (number, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True)):
        layers: list[Layer] = []
        out = expansion * width
        for i in range(number):
            stride = 2 if stage > 0 and i == 0 else 1
            shortcut = None
            if stride != 1 or channels != out:
                shortcut = Sequential(Conv2d(channels, out, 1, stride, bias=False), BatchNorm2d(out))
            layers.append(_Block(body(channels, width, stride), shortcut, ReLU()))
            channels = out
        parts[f"layer{stage + 1}"] = Sequential(*layers)
    parts |= {
        "avgpool": GlobalAvgPool(),
        "flatten": Flatten(),
        "fc": Dense(channels, count("num_classes", num_classes)),
    }
    return Sequential(parts, **placement)


def _basic_body(channels: int, width: int, stride: int) -> Sequential:
    parts: dict[str, Layer] = {
        "conv1": Conv2d(channels, width, 3, stride, padding=1, bias=False),
        "bn1": BatchNorm2d(width),
        "relu": ReLU(),
        "conv2": Conv2d(width, width, 3, padding=1, bias=False),
        "bn2": BatchNorm2d(width),
    }
    return Sequential(parts)


def _bottleneck_body(channels: int, width: int, stride: int) -> Sequential:
    parts: dict[str, Layer] = {
        "conv1": Conv2d(channels, width, 1, bias=False),
        "bn1": BatchNorm2d(width),
        "relu1": ReLU(),
        "conv2": Conv2d(width, width, 3, stride, padding=1, bias=False),
        "bn2": BatchNorm2d(width),
        "relu2": ReLU(),
        "conv3": Conv2d(width, 4 * width, 1, bias=False),
        "bn3": BatchNorm2d(4 * width),
    }
    return Sequential(parts)


def _inverted_residual(channels: int, out: int, stride: int, expansion: int) -> Layer:
    """Expand, filter each channel, project; with a shortcut if input and output have the same shape."""
    wide = channels * expansion
    layers: list[Layer] = [] if expansion == 1 else [_clipped(channels, wide, 1)]
    layers += [_clipped(wide, wide, 3, stride, wide), Conv2d(wide, out, 1, bias=False), BatchNorm2d(out)]
    body = Sequential(*layers)
    return _InvertedResidual(body) if stride == 1 and channels == out else Sequential({"conv": body})


def _clipped(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Sequential:
    """A convolution, batch norm and ReLU6."""
    convolution = Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return Sequential(convolution, BatchNorm2d(out), ReLU6())
