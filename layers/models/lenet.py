"""LeNet: convolutions and pooling, followed by dense layers."""

from typing import Unpack

from ..activations import ReLU
from ..containers.sequential import Sequential
from ..convolution.conv import Conv2d
from ..core.placement import Placement
from ..dense import Dense
from ..pool import MaxPool2d
from ..reshaping.flatten import Flatten
from ..windows.geometry import output_size
from .arguments import count, image_shape

SMALLEST = 4


def lenet(image: tuple[int, int, int], classes: int, **placement: Unpack[Placement]) -> Sequential:
    """A small convolutional net similar to LeNet-5 for images ``(C, H, W)`` of at least 4 x 4 pixels.

    3x3 convolutions with 16, 32 and 64 channels, ReLU and 2x2 max-pooling, then two dense layers. Smaller kernels than
    LeNet's and "same" padding make it suitable for small images, such as 8 x 8.

    Raises
    ------
    ValueError
        For images smaller than 4 x 4, for which two poolings would leave no pixel.

    Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    (channels, height, width), classes = image_shape(image), count("classes", classes)
    if min(height, width) < SMALLEST:
        raise ValueError(f"lenet: images must have at least {SMALLEST} x {SMALLEST} pixels, got {height} x {width}")
    pooled = [output_size(output_size(n, 2, 2), 2, 2) for n in (height, width)]
    return Sequential(
        Conv2d(channels, 16, 3, padding="same"),
        ReLU(),
        Conv2d(16, 32, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Conv2d(32, 64, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(64 * pooled[0] * pooled[1], 64),
        ReLU(),
        Dense(64, classes),
        **placement,
    )


def lenet5(image: tuple[int, int, int], classes: int, **placement: Unpack[Placement]) -> Sequential:
    """LeNet-5 with ReLU and max-pooling, for images ``(C, H, W)`` of at least 12 x 12 pixels; used in benchmarks.

    5x5 convolutions with 6 and 16 channels, then dense layers with 120 and 84 features.
    """
    (channels, height, width), classes = image_shape(image), count("classes", classes)
    pooled = [output_size(output_size(output_size(n, 2, 2), 5), 2, 2) for n in (height, width)]
    if min(pooled) < 1:
        raise ValueError(f"lenet5: images must have at least 12 x 12 pixels, got {height} x {width}")
    return Sequential(
        Conv2d(channels, 6, 5, padding=2),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(16 * pooled[0] * pooled[1], 120),
        ReLU(),
        Dense(120, 84),
        ReLU(),
        Dense(84, classes),
        **placement,
    )
