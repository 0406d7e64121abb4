"""Layers that rearrange values, repeat them, or add constants around them."""

from .flatten import Flatten
from .pad import Pad
from .permute import Permute
from .reshape import Reshape
from .upsample import Upsample

__all__ = ["Flatten", "Pad", "Permute", "Reshape", "Upsample"]
