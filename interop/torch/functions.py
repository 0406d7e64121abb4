"""Layers for what a module's ``forward`` computes by functions, methods and operators.

A row of `FUNCTIONS` has the name of the function, without the underscore that PyTorch puts behind one that works in
place, the names of its arguments in order, and what makes layers of them: one after the other, or a join.
Some functions of ``torch.nn.functional`` have a ``__name__`` other than the one they are called by:
``boolean_dispatch``, ``log_sigmoid``, ``_threshold``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import layers as nn
from ...layers.core.layer import Layer
from ..unsupported import Unsupported
from .counterparts import whole


@dataclass(frozen=True)
class Call:
    """A call of a function in a module's ``forward``.

    Attributes
    ----------
    name : str
    given : mapping
        Arguments by name, without those of PyTorch's defaults; arrays are None.
    count : int
        The number of arrays.
    shape, output_shape : tuple of int
        Of the first array and of the result, in a trial.
    """

    name: str
    given: Mapping[str, Any]
    count: int
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument."""
        return self.given.get(name, default)

    def require(self, **wanted: Any) -> None:
        """Raise `Unsupported` if one of these arguments has another value."""
        for name, value in wanted.items():
            if self.get(name, value) != value:
                raise Unsupported(f"{self.name} with {name}={self.get(name)!r}")

    def keyword(self, *names: str, **renamed: str) -> dict[str, Any]:
        """Arguments that were given, for the constructor of a layer; ``renamed`` has PyTorch's names."""
        found = {name: self.given[name] for name in names if name in self.given}
        return found | {ours: self.given[theirs] for ours, theirs in renamed.items() if theirs in self.given}

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.shape) - 2


#: Makes the layers for a call.
Build = Callable[[Call], Sequence[Layer]]


def _simple(layer: Callable[..., Layer], *names: str, **renamed: str) -> Build:
    return lambda call: [layer(**call.keyword(*names, **renamed))]


def _reshape(call: Call) -> Sequence[Layer]:
    if call.output_shape[:1] != call.shape[:1]:
        raise Unsupported(f"{call.name} of shape {call.shape} to {call.output_shape}, which changes the batch axis")
    sample = call.output_shape[1:]
    if len(sample) == 1:
        return [nn.Flatten()] if len(call.shape) != 2 else []
    return [nn.Reshape(*sample)]


def _permute(order: Callable[[Call], Sequence[int]]) -> Build:
    def build(call: Call) -> Sequence[Layer]:
        count = len(call.shape)
        axes = [axis % count for axis in order(call)]
        if axes[0] != 0:
            raise Unsupported(f"{call.name} that moves the batch axis, to the order {tuple(axes)}")
        return [nn.Permute(*axes[1:])] if axes != sorted(axes) else []

    return build


def _permuted(call: Call) -> Sequence[int]:
    dims = call.get("dims")
    return list(dims) if isinstance(dims, tuple | list) else [call.given[k] for k in call.given if k != "input"]


def _transposed(call: Call) -> Sequence[int]:
    count = len(call.shape)
    order = list(range(count))
    a, b = call.get("dim0") % count, call.get("dim1") % count
    order[a], order[b] = b, a
    return order


def _mean(pool: Callable[[], Layer]) -> Build:
    """A mean, or maximum, over all axes behind the channels, or over the positions of a sequence."""

    def build(call: Call) -> Sequence[Layer]:
        count, dims = len(call.shape), call.get("dim")
        if dims is None:
            raise Unsupported(f"{call.name} over all axes, the batch too")
        axes = sorted({axis % count for axis in (dims if isinstance(dims, tuple | list) else (dims,))})
        keeps = bool(call.get("keepdim", False))
        if count >= 3 and axes == list(range(2, count)):
            return [pool()] if keeps else [pool(), nn.Flatten()]
        if count == 3 and axes == [1]:
            layers: list[Layer] = [nn.Permute(2, 1), pool()]
            return [*layers, nn.Permute(2, 1)] if keeps else [*layers, nn.Flatten()]
        raise Unsupported(f"{call.name} over the axes {tuple(axes)} of {count}")

    return build


def _upsample(call: Call) -> Sequence[Layer]:
    call.require(recompute_scale_factor=None, antialias=False)
    sizes = {name: whole(call.get(name)) for name in ("size", "scale_factor") if call.get(name) is not None}
    return [nn.Upsample(**sizes, **call.keyword("mode", "align_corners"))]


def _pad(call: Call) -> Sequence[Layer]:
    flat, mode = list(call.get("pad")), call.get("mode", "constant")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    pairs = [(0, 0)] * (call.rank - len(pairs)) + pairs
    if len(pairs) != call.rank or call.rank < 1 or min(min(pair) for pair in pairs) < 0:
        raise Unsupported(f"{call.name} by {tuple(flat)} of an input of {len(call.shape)} axes")
    value = call.get("value") or 0.0
    return [nn.Pad(pairs, value=value, mode=mode)]


def _pool(kind: str) -> Build:
    def build(call: Call) -> Sequence[Layer]:
        layer = getattr(nn, f"{kind}{call.rank}d")
        call.require(return_indices=False)
        names = "norm_type kernel_size stride padding dilation ceil_mode count_include_pad divisor_override output_size"
        given = call.keyword(*names.split())
        if given.get("stride") == []:
            del given["stride"]
        return [layer(**given)]

    return build


def _softmax(layer: Callable[..., Layer]) -> Build:
    def build(call: Call) -> Sequence[Layer]:
        call.require(dtype=None)
        if call.get("dim") is None:
            raise Unsupported(f"{call.name} without dim, which PyTorch guesses from the input")
        return [layer(axis=call.get("dim"))]

    return build


def _dropout(layer: Callable[..., Layer]) -> Build:
    def build(call: Call) -> Sequence[Layer]:
        # The trace is that of training.
        return [layer(**call.keyword("p"))] if call.get("training", True) else []

    return build


def _concat(call: Call) -> Sequence[Layer]:
    # One array joined with none is itself.
    return [] if call.count == 1 else [nn.Concat(call.get("dim", 0) % len(call.shape))]


def _add(call: Call) -> Sequence[Layer]:
    call.require(alpha=1)
    return [nn.Add()]


def _clip(call: Call) -> Sequence[Layer]:
    return [nn.Clip(**call.keyword("min", "max"))]


def _nothing(call: Call) -> Sequence[Layer]:
    return []


_POOL = ("input", "kernel_size", "stride", "padding")
_NORM = ("input", "size", "alpha", "beta", "k")
_FLATTEN = ("input", "start_dim", "end_dim")

FUNCTIONS: dict[str, tuple[tuple[str, ...], Build]] = {
    "relu": (("input",), _simple(nn.ReLU)),
    "relu6": (("input",), _simple(nn.ReLU6)),
    "elu": (("input", "alpha"), _simple(nn.ELU, "alpha")),
    "celu": (("input", "alpha"), _simple(nn.CELU, "alpha")),
    "selu": (("input",), _simple(nn.SELU)),
    "gelu": (("input",), _simple(nn.GELU, "approximate")),
    "silu": (("input",), _simple(nn.SiLU)),
    "mish": (("input",), _simple(nn.Mish)),
    "sigmoid": (("input",), _simple(nn.Sigmoid)),
    "tanh": (("input",), _simple(nn.Tanh)),
    "hardtanh": (("input", "min_val", "max_val"), _simple(nn.HardTanh, "min_val", "max_val")),
    "hardsigmoid": (("input",), _simple(nn.HardSigmoid)),
    "hardswish": (("input",), _simple(nn.HardSwish)),
    "leaky_relu": (("input", "negative_slope"), _simple(nn.LeakyReLU, "negative_slope")),
    "logsigmoid": (("input",), _simple(nn.LogSigmoid)),
    "log_sigmoid": (("input",), _simple(nn.LogSigmoid)),
    "softplus": (("input", "beta", "threshold"), _simple(nn.Softplus, "beta", "threshold")),
    "softsign": (("input",), _simple(nn.Softsign)),
    "hardshrink": (("input", "lambd"), _simple(nn.HardShrink, "lambd")),
    "softshrink": (("input", "lambd"), _simple(nn.SoftShrink, "lambd")),
    "tanhshrink": (("input",), _simple(nn.TanhShrink)),
    "threshold": (("input", "threshold", "value"), _simple(nn.Threshold, "threshold", "value")),
    "_threshold": (("input", "threshold", "value"), _simple(nn.Threshold, "threshold", "value")),
    "glu": (("input", "dim"), _simple(nn.GLU, axis="dim")),
    "softmax": (("input", "dim"), _softmax(nn.Softmax)),
    "log_softmax": (("input", "dim"), _softmax(nn.LogSoftmax)),
    "softmin": (("input", "dim"), _softmax(nn.Softmin)),
    "clamp": (("input", "min", "max"), _clip),
    "clip": (("input", "min", "max"), _clip),
    "dropout": (("input", "p", "training"), _dropout(nn.Dropout)),
    "dropout1d": (("input", "p", "training"), _dropout(nn.Dropout1d)),
    "dropout2d": (("input", "p", "training"), _dropout(nn.Dropout2d)),
    "dropout3d": (("input", "p", "training"), _dropout(nn.Dropout3d)),
    "max_pool": ((*_POOL, "dilation", "ceil_mode", "return_indices"), _pool("MaxPool")),
    "boolean_dispatch": ((*_POOL, "dilation", "ceil_mode", "return_indices"), _pool("MaxPool")),
    "avg_pool": ((*_POOL, "ceil_mode", "count_include_pad", "divisor_override"), _pool("AvgPool")),
    "lp_pool": (("input", "norm_type", "kernel_size", "stride", "ceil_mode"), _pool("LpPool")),
    "adaptive_avg_pool": (("input", "output_size"), _pool("AdaptiveAvgPool")),
    "adaptive_max_pool": (("input", "output_size", "return_indices"), _pool("AdaptiveMaxPool")),
    "local_response_norm": (
        ("input", "size", "alpha", "beta", "k"),
        _simple(nn.LocalResponseNorm, "size", "alpha", "beta", "k"),
    ),
    "pixel_shuffle": (("input", "upscale_factor"), _simple(nn.PixelShuffle, "upscale_factor")),
    "pixel_unshuffle": (("input", "downscale_factor"), _simple(nn.PixelUnshuffle, "downscale_factor")),
    "interpolate": (("input", "size", "scale_factor", "mode", "align_corners"), _upsample),
    "pad": (("input", "pad", "mode", "value"), _pad),
    "flatten": (_FLATTEN, _reshape),
    "unflatten": (("input", "dim", "sizes"), _reshape),
    "view": (("input",), _reshape),
    "reshape": (("input",), _reshape),
    "squeeze": (("input",), _reshape),
    "unsqueeze": (("input",), _reshape),
    "permute": (("input", "dims"), _permute(_permuted)),
    "transpose": (("input", "dim0", "dim1"), _permute(_transposed)),
    "swapaxes": (("input", "dim0", "dim1"), _permute(_transposed)),
    "mean": (("input", "dim", "keepdim"), _mean(nn.GlobalAvgPool)),
    "amax": (("input", "dim", "keepdim"), _mean(nn.GlobalMaxPool)),
    "add": (("input", "other"), _add),
    "iadd": (("input", "other"), _add),
    "mul": (("input", "other"), lambda call: [nn.Multiply()]),
    "imul": (("input", "other"), lambda call: [nn.Multiply()]),
    "multiply": (("input", "other"), lambda call: [nn.Multiply()]),
    "cat": (("tensors", "dim"), _concat),
    "concat": (("tensors", "dim"), _concat),
    "concatenate": (("tensors", "dim"), _concat),
    "contiguous": (("input",), _nothing),
    "clone": (("input",), _nothing),
}
