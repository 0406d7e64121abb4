"""A multilayer perceptron."""

from typing import Unpack

from ..activations import ReLU
from ..containers.sequential import Sequential
from ..core.placement import Placement
from ..dense import Dense
from ..reshaping.flatten import Flatten
from .arguments import count, image_shape


def mlp(image: tuple[int, int, int], classes: int, **placement: Unpack[Placement]) -> Sequential:
    """Two hidden dense layers with 128 and 64 features and ReLU, for images ``(C, H, W)``."""
    (channels, height, width), classes = image_shape(image), count("classes", classes)
    return Sequential(
        Flatten(),
        Dense(channels * height * width, 128),
        ReLU(),
        Dense(128, 64),
        ReLU(),
        Dense(64, classes),
        **placement,
    )
