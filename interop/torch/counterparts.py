"""Which layer is which module of PyTorch, and with which arguments.

Names and meanings of arguments are PyTorch's wherever both have them, so most rows are two names. A row says what
differs: other names of arguments, and values that only one side has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ... import layers as nn
from ...layers.core.layer import Layer
from ...layers.core.placement import Placement
from ..unsupported import Unsupported


@dataclass(frozen=True)
class Counterpart:
    """A layer and the module that computes the same.

    Attributes
    ----------
    layer : type
    module : str
        Name in ``torch.nn``, or with a leading dot in `xpnn.interop.torch.modules`.
    names : mapping
        Arguments of the layer whose names differ in PyTorch.
    only : mapping
        Attributes of the module that must have this value, because the layer has no such argument.
    ours : mapping
        Arguments of the layer that must have this value, because the module has no such argument.
    any_padding : bool
        Whether `xpnn.interop.torch.modules` has one of the same name for padding that PyTorch's lacks.
    check : function, optional
        Raises `Unsupported` for a layer or module that the other side computes in another way.
    """

    layer: type[Layer]
    module: str
    names: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    any_padding: bool = False
    check: Callable[[Any], None] | None = None

    def arguments(self) -> list[str]:
        """The names of the layer's arguments that the module has too."""
        names = [name for name, _ in self.layer.signature] or _WITHOUT_SIGNATURE.get(self.layer, [])
        return [name for name in names if name not in self.ours]

    def layer_of(self, module: Any, placement: Placement) -> Layer:
        """The layer for a module; its parameters are not set."""
        if self.check is not None:
            self.check(module)
        for name, wanted in self.only.items():
            if hasattr(module, name) and getattr(module, name) != wanted:
                raise Unsupported(f"{name}={getattr(module, name)!r}, which only PyTorch has")
        given = {name: _from_module(module, self.names.get(name, name), name) for name in self.arguments()}
        if self.layer in _WITHOUT_SIGNATURE:
            return self.layer(*given.popitem()[1], **placement)
        return self.layer(**given, **placement)

    def module_of(self, layer: Layer, torch: Any) -> Any:
        """The module for a layer; its parameters are not set."""
        if self.check is not None:
            self.check(layer)
        for name, wanted in self.ours.items():
            if _one(getattr(layer, name)) != wanted:
                raise Unsupported(f"{name}={getattr(layer, name)!r}, which PyTorch's {self.module} does not have")
        given = {self.names.get(name, name): getattr(layer, name) for name in self.arguments()}
        is_own = self.module.startswith(".")
        if "padding" in given and not is_own:
            simple = _symmetric(layer)
            is_own = simple is None
            if is_own and (not self.any_padding or getattr(layer, "ceil_mode", False)):
                raise Unsupported(f"padding={given['padding']!r}, which PyTorch's {self.module} does not have")
            given["padding"] = given["padding"] if is_own else simple
        if is_own:
            # Imports PyTorch.
            from . import modules

            return getattr(modules, self.module.lstrip("."))(**given)
        return getattr(torch.nn, self.module)(**given)


# Attributes with the arguments of layers without a signature. Those of the first two are any number of integers.
_WITHOUT_SIGNATURE: dict[type[Layer], list[str]] = {
    nn.Reshape: ["shape"],
    nn.Permute: ["axes"],
    nn.GlobalAvgPool: ["output_size"],
    nn.GlobalMaxPool: ["output_size"],
}
_AXES = (1, 2, 3)


#: Makes the layer for a module, with a placement.
Convert: TypeAlias = Callable[[Any, Placement], Layer]


def _pad_of(module: Any, placement: Placement) -> Layer:
    """The layer for a padding module: PyTorch lists pairs from the last axis to the first."""
    name = type(module).__name__
    axes, flat = int(name[-2]), module.padding
    flat = (flat,) * (2 * axes) if isinstance(flat, int) else tuple(flat)
    if min(flat) < 0:
        raise Unsupported(f"padding={flat}, which removes cells")
    pairs = tuple((flat[2 * i], flat[2 * i + 1]) for i in reversed(range(axes)))
    mode = next((mode for start, mode in _PAD_MODES.items() if name.startswith(start)), "constant")
    return nn.Pad(pairs, value=float(getattr(module, "value", 0.0)), mode=mode, **placement)


_PAD_MODES = {"Reflection": "reflect", "Replication": "replicate", "Circular": "circular"}


def _upsampling_of(mode: str, align_corners: bool | None) -> Convert:
    def layer(module: Any, placement: Placement) -> Layer:
        size, scale = (None if each is None else whole(each) for each in (module.size, module.scale_factor))
        return nn.Upsample(scale_factor=scale, size=size, mode=mode, align_corners=align_corners, **placement)

    return layer


#: Modules that a layer of another form computes, by name.
OTHERS: Mapping[str, Convert] = {
    "Hardsigmoid": lambda module, placement: nn.HardSigmoid(**placement),
    "Softmax2d": lambda module, placement: nn.Softmax(1, **placement),
    "UpsamplingNearest2d": _upsampling_of("nearest", None),
    "UpsamplingBilinear2d": _upsampling_of("bilinear", True),
    **{f"{kind}Pad{d}d": _pad_of for kind in ("Zero", "Constant", *_PAD_MODES) for d in _AXES},
}


def _from_module(module: Any, name: str, ours: str) -> Any:
    # Of those with a padding that PyTorch's lack.
    value = getattr(module, "cells" if name == "padding" and hasattr(module, "cells") else name)
    if ours == "bias" and not isinstance(value, bool):
        # A layer norm without a weight has no bias either.
        return value is not None or not getattr(module, "elementwise_affine", True)
    if name in ("scale_factor", "size") and value is not None:
        return whole(value)
    if ours == "axis" and value is None:
        raise Unsupported(f"{name}=None, which PyTorch guesses from the input; give it {name}")
    return value


def whole(value: Any) -> Any:
    """The same with numbers without a fraction as integers."""
    if isinstance(value, tuple | list):
        return tuple(map(whole, value))
    return int(value) if float(value).is_integer() else float(value)


def _one(value: Any) -> Any:
    """The size of all axes, if it is one."""
    return value[0] if isinstance(value, tuple) and len({*value}) == 1 else value


def _require_even(pool: Any) -> None:
    """PyTorch adds powers of numbers with their signs."""
    if float(pool.norm_type) % 2:
        raise Unsupported(f"norm_type={pool.norm_type!r}; only for even ones do both sides compute the same")


def _symmetric(layer: Any) -> Any:
    """A layer's padding in PyTorch's form, as many cells before as after; None if it does not have that."""
    padding = layer.padding
    if isinstance(padding, str):
        is_conv = not hasattr(layer, "ceil_mode")
        return padding if is_conv and (padding == "valid" or (padding == "same" and _one(layer.stride) == 1)) else None
    each = padding if isinstance(padding, tuple) else (padding,)
    pairs = [p if isinstance(p, tuple) else (p, p) for p in each]
    if any(before != after for before, after in pairs):
        return None
    if hasattr(layer, "ceil_mode"):
        kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * len(pairs)
        if any(2 * before > k for (before, _), k in zip(pairs, kernel, strict=len(pairs) == len(kernel))):
            return None
    return tuple(before for before, _ in pairs) if isinstance(padding, tuple) else padding


def _rows() -> list[Counterpart]:
    rows = [
        Counterpart(nn.Dense, "Linear"),
        Counterpart(nn.Identity, "Identity"),
        Counterpart(nn.Embedding, "Embedding", only={"max_norm": None, "scale_grad_by_freq": False, "sparse": False}),
        Counterpart(nn.GroupNorm, "GroupNorm"),
        Counterpart(nn.LayerNorm, "LayerNorm"),
        Counterpart(nn.RMSNorm, "RMSNorm"),
        Counterpart(nn.LocalResponseNorm, "LocalResponseNorm"),
        Counterpart(nn.GLU, "GLU", {"axis": "dim"}),
        Counterpart(nn.Softmax, "Softmax", {"axis": "dim"}),
        Counterpart(nn.LogSoftmax, "LogSoftmax", {"axis": "dim"}),
        Counterpart(nn.Softmin, "Softmin", {"axis": "dim"}),
        Counterpart(nn.HardTanh, "Hardtanh"),
        Counterpart(nn.HardShrink, "Hardshrink"),
        Counterpart(nn.HardSwish, "Hardswish"),
        Counterpart(nn.SoftShrink, "Softshrink"),
        Counterpart(nn.TanhShrink, "Tanhshrink"),
        Counterpart(nn.Upsample, "Upsample", only={"recompute_scale_factor": None}),
        Counterpart(nn.Dropout1d, "Dropout1d"),
        Counterpart(nn.Dropout2d, "Dropout2d"),
        Counterpart(nn.Dropout3d, "Dropout3d"),
        Counterpart(nn.Reshape, ".Reshape"),
        Counterpart(nn.Permute, ".Permute"),
        Counterpart(nn.Clip, ".Clip"),
        Counterpart(nn.HardSigmoid, ".HardSigmoid"),
        Counterpart(nn.Hardmax, ".Hardmax"),
        Counterpart(nn.Pad, ".Pad"),
        Counterpart(nn.GlobalAvgPool, ".AdaptiveAvgPool"),
        Counterpart(nn.GlobalMaxPool, ".AdaptiveMaxPool"),
        Counterpart(nn.AdaptiveAvgPool, ".AdaptiveAvgPool"),
        Counterpart(nn.AdaptiveMaxPool, ".AdaptiveMaxPool"),
        Counterpart(nn.GlobalLpPool, ".GlobalLpPool"),
        Counterpart(nn.PositionEmbedding, ".PositionEmbedding"),
        Counterpart(nn.MultiHeadAttention, ".SelfAttention"),
    ]
    same = "CELU ELU GELU SELU LeakyReLU Mish PReLU ReLU ReLU6 SiLU Softplus LogSigmoid Sigmoid Softsign Tanh Threshold"
    for name in (*same.split(), "Dropout", "Flatten", "PixelShuffle", "PixelUnshuffle"):
        rows.append(Counterpart(getattr(nn, name), name))
    for d in _AXES:
        rows += [
            Counterpart(getattr(nn, f"Conv{d}d"), f"Conv{d}d", any_padding=True),
            Counterpart(getattr(nn, f"ConvTranspose{d}d"), f"ConvTranspose{d}d", only={"padding_mode": "zeros"}),
            Counterpart(getattr(nn, f"BatchNorm{d}d"), f"BatchNorm{d}d"),
            Counterpart(getattr(nn, f"InstanceNorm{d}d"), f"InstanceNorm{d}d"),
            Counterpart(
                getattr(nn, f"MaxPool{d}d"),
                f"MaxPool{d}d",
                only={"return_indices": False},
                ours={"return_indices": False},
                any_padding=True,
            ),
            Counterpart(
                getattr(nn, f"AvgPool{d}d"),
                f"AvgPool{d}d",
                ours={"dilation": 1, **({"divisor_override": None} if d == 1 else {})},
            ),
            Counterpart(
                getattr(nn, f"LpPool{d}d"),
                f"LPPool{d}d",
                ours={
                    "padding": 0,
                    "dilation": 1,
                },
                check=_require_even,
            ),
            Counterpart(getattr(nn, f"AdaptiveAvgPool{d}d"), f"AdaptiveAvgPool{d}d"),
            Counterpart(getattr(nn, f"AdaptiveMaxPool{d}d"), f"AdaptiveMaxPool{d}d", only={"return_indices": False}),
        ]
    return rows


ROWS = _rows()
BY_LAYER: Mapping[type[Layer], Counterpart] = {row.layer: row for row in ROWS}
BY_MODULE: Mapping[str, Counterpart] = {
    **{row.module: row for row in ROWS},
    **{f".{row.module}": row for row in ROWS if row.any_padding},
}
