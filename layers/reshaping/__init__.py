"""Layers that rearrange values, repeat or interpolate them, or add others around them."""

from .flatten import Flatten
from .pad import Pad
from .permute import Permute
from .pixel_shuffle import PixelShuffle, PixelUnshuffle
from .reshape import Reshape
from .upsample import Upsample

__all__ = ["Flatten", "Pad", "Permute", "PixelShuffle", "PixelUnshuffle", "Reshape", "Upsample"]
