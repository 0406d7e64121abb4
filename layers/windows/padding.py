"""Add the padding of windows to an array with channels last, and remove it again."""

from array_api_compat import device

from ...common.types import Array, Namespace
from .geometry import Geometry


def pad(x: Array, geometry: Geometry, value: float, xp: Namespace) -> Array:
    """``x (N, *spatial, C)`` surrounded by its padding (and the overhang of ``ceil_mode``), filled with ``value``."""
    if not geometry.is_padded:
        return x
    shape, inside = [x.shape[0]], [slice(None)]
    for n, (before, after), over in zip(x.shape[1:-1], geometry.padding, geometry.overhang, strict=True):
        shape.append(before + n + after + over)
        inside.append(slice(before, before + n))
    padded = xp.full((*shape, x.shape[-1]), value, dtype=x.dtype, device=device(x))
    padded[(*inside, slice(None))] = x
    return padded


def unpad(padded: Array, geometry: Geometry, spatial: tuple[int, ...]) -> Array:
    """The part of a padded array that was the input of `pad`: the gradient of `pad`."""
    if not geometry.is_padded:
        return padded
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(spatial, geometry.padding, strict=True))
    return padded[(slice(None), *inside, slice(None))]


def padded_shape(x_shape: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    """The shape of the result of `pad`, for a channels-last shape."""
    spatial = (
        before + n + after + over
        for n, (before, after), over in zip(x_shape[1:-1], geometry.padding, geometry.overhang, strict=True)
    )
    return (x_shape[0], *spatial, x_shape[-1])
