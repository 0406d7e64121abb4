"""Pooling: over windows (`maximum`, `average`, `lp`), and to a given size (`adaptive_maximum`, `adaptive_average`).

The layers of the first are in `layers`, those of the second and global pools in `adaptive_layers`.
"""

from .adaptive_layers import (
    AdaptiveAvgPool,
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    GlobalAvgPool,
    GlobalLpPool,
    GlobalMaxPool,
)
from .layers import (
    AvgPool,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LpPool,
    LpPool1d,
    LpPool2d,
    LpPool3d,
    MaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "LpPool1d",
    "LpPool2d",
    "LpPool3d",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]
