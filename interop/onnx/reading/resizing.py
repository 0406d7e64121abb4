"""The layer for operators that give the spatial axes another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .... import layers as nn
from ....layers.core.layer import Layer
from ...unsupported import Unsupported
from .node import Node, short

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(node: Node) -> Sequence[Layer]:
    """`Upsample`."""
    axes, mode = len(node.shape) - 2, node.text("mode", "nearest")
    scales, sizes = _scales_and_sizes(node, axes)
    transform = node.text("coordinate_transformation_mode", "half_pixel" if node.opset > 10 else "asymmetric")
    rounding = node.text("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor")
    coefficient, plain = (
        node.number("cubic_coeff_a", -0.75),
        not any((node.integer("exclude_outside", 0), node.integer("antialias", 0))),
    )
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("a ratio of sizes that is kept")
    # What is beyond the input, of which none of these modes reads anything.
    node.number("extrapolation_value", 0.0)
    given: dict[str, Any] = {"size": sizes} if sizes is not None else {"scale_factor": scales}
    if mode == "nearest" and (transform, rounding) == ("asymmetric", "floor"):
        return [nn.Upsample(**given, mode="nearest")]
    if mode == "nearest" and (transform, rounding) == ("half_pixel", "round_prefer_ceil"):
        return [nn.Upsample(**given, mode="nearest-exact")]
    is_cubic = mode == "cubic" and abs(coefficient + 0.75) < 1e-6 and axes == 2
    if plain and (is_cubic or mode == "linear") and transform in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name = "bicubic" if is_cubic else _LINEAR[axes]
        return [nn.Upsample(**given, mode=name, align_corners=transform == "align_corners")]
    raise Unsupported(f"mode={mode} with {transform}{f' and {rounding}' if mode == 'nearest' else ''}")


def _scales_and_sizes(node: Node, axes: int) -> tuple[Any, Any]:
    """The scales, or the sizes, of the spatial axes."""
    order = node.integers("axes")
    first = 1 if node.operator == "Upsample" or node.opset < 11 else 2
    scales = node.numbers("scales") if node.operator == "Upsample" and node.opset < 9 else None
    if scales is None and (value := node.constant(first, "scales")) is not None and value.size:
        scales = [short(each) for each in value.reshape(-1)]
    sizes = node.sizes(3, "sizes") if scales is None and len(node.inputs) > 3 else None
    found = scales if scales is not None else sizes
    if found is None or axes not in _LINEAR:
        raise Unsupported(f"neither scales nor sizes for {axes} spatial axes")
    if order is None:
        lead = [1.0, 1.0] if scales is not None else list(node.shape[:2])
        if len(found) != axes + 2 or list(found[:2]) != lead:
            raise Unsupported(f"{'scales' if scales is not None else 'sizes'}={found}")
        found = found[2:]
    elif [axis % (axes + 2) for axis in order] != list(range(2, axes + 2)) or len(found) != axes:
        raise Unsupported(f"axes={order}")
    if sizes is not None:
        return None, tuple(int(n) for n in found)
    return tuple(int(n) if float(n).is_integer() else n for n in found), None
