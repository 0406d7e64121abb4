"""Pooling: functions, one idea a file, and the layers on them."""

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
    "AvgPool",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LpPool",
    "LpPool1d",
    "LpPool2d",
    "LpPool3d",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]
