"""Modules of PyTorch for layers that it has no module for; imported only where PyTorch is.

Each computes what the layer of its name computes and has its arguments as attributes, so that `from_torch` turns it
back into that layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ...layers.windows.geometry import resolve_padding

# PyTorch's names of the modes of padding.
_MODES = {"zeros": "constant"}


class _Shown(torch.nn.Module):
    """Base of modules whose arguments, attributes named in ``shown``, are in their ``repr``."""

    shown: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        """The arguments."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)


class Reshape(_Shown):
    """`xpnn.Reshape`: ``(N, ...)`` to ``(N, *shape)``."""

    shown = ("shape",)

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Any) -> Any:
        """The same values in another shape."""
        known = 1
        for size in self.shape:
            known *= 1 if size == -1 else size
        # PyTorch does not compute a size of an empty batch.
        sizes = [x[:1].numel() // known if size == -1 and x.shape[0] else abs(size) for size in self.shape]
        return x.reshape(x.shape[0], *sizes)


class Permute(_Shown):
    """`xpnn.Permute`: axes after the batch in another order."""

    shown = ("axes",)

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Any) -> Any:
        """A view with the axes in that order."""
        return x.permute(0, *self.axes)


class Clip(_Shown):
    """`xpnn.Clip`."""

    shown = ("min", "max")

    def __init__(self, min: float | None, max: float | None) -> None:
        super().__init__()
        self.min, self.max = min, max

    def forward(self, x: Any) -> Any:
        """Values limited to the range."""
        return x if self.min is self.max is None else torch.clamp(x, self.min, self.max)


class HardSigmoid(_Shown):
    """`xpnn.HardSigmoid`, with any slope."""

    shown = ("alpha", "beta")

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Any) -> Any:
        """The line, clipped."""
        return torch.clamp(self.alpha * x + self.beta, 0.0, 1.0)


class Hardmax(_Shown):
    """`xpnn.Hardmax`."""

    shown = ("axis",)

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Any) -> Any:
        """1 at the first largest value along the axis, else 0."""
        return torch.zeros_like(x).scatter(self.axis, x.argmax(self.axis, keepdim=True), 1.0)


class Pad(_Shown):
    """`xpnn.Pad`, with a pair (before, after) for each spatial axis, or one number for all."""

    shown = ("padding", "value", "mode")

    def __init__(self, padding: Any, value: float, mode: str) -> None:
        super().__init__()
        self.padding, self.value, self.mode = padding, value, mode

    def forward(self, x: Any) -> Any:
        """The padded array."""
        axes = x.ndim - 2
        each = self.padding if isinstance(self.padding, tuple) else (self.padding,) * axes
        pairs = [p if isinstance(p, tuple) else (p, p) for p in each]
        flat = [cells for pair in reversed(pairs) for cells in pair]
        return F.pad(x, flat, mode=self.mode, **({"value": self.value} if self.mode == "constant" else {}))


class _Padded(torch.nn.Module):
    """Base of convolutions and pools with a padding that PyTorch's lack: it depends on the input, or on the side."""

    value = 0.0

    def _pad(self, x: Any, mode: str = "constant") -> Any:
        """The padded array."""
        pairs = resolve_padding(self.cells, tuple(x.shape[2:]), self.kernel_size, self.stride, self.dilation)
        flat = [cells for pair in reversed(pairs) for cells in pair]
        return F.pad(x, flat, mode=mode, **({"value": self.value} if mode == "constant" else {}))


class _PaddedConv(_Padded):
    def __init__(self, *, padding: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.cells = padding

    def forward(self, x: Any) -> Any:
        """The convolution of the padded input."""
        x = self._pad(x, _MODES.get(self.padding_mode) or str(self.padding_mode))
        return self._operation(x)

    def _operation(self, x: Any) -> Any:
        function = getattr(F, f"conv{x.ndim - 2}d")
        return function(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Conv1d(_PaddedConv, torch.nn.Conv1d):
    """`xpnn.Conv1d` with any padding."""


class Conv2d(_PaddedConv, torch.nn.Conv2d):
    """`xpnn.Conv2d` with any padding."""


class Conv3d(_PaddedConv, torch.nn.Conv3d):
    """`xpnn.Conv3d` with any padding."""


class _PaddedMaxPool(_Padded):
    value = -torch.inf

    def __init__(self, *, padding: Any, stride: Any, kernel_size: Any, **arguments: Any) -> None:
        super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, **arguments)
        self.cells = padding

    def forward(self, x: Any) -> Any:
        """The maxima of the padded input."""
        return super().forward(self._pad(x))


class MaxPool1d(_PaddedMaxPool, torch.nn.MaxPool1d):
    """`xpnn.MaxPool1d` with any padding."""


class MaxPool2d(_PaddedMaxPool, torch.nn.MaxPool2d):
    """`xpnn.MaxPool2d` with any padding."""


class MaxPool3d(_PaddedMaxPool, torch.nn.MaxPool3d):
    """`xpnn.MaxPool3d` with any padding."""


class AdaptiveAvgPool(_Shown):
    """`xpnn.AdaptiveAvgPool` and `xpnn.GlobalAvgPool`, for any number of spatial axes."""

    shown = ("output_size",)

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Any:
        """Averages of bins."""
        return getattr(F, f"adaptive_avg_pool{x.ndim - 2}d")(x, self.output_size)


class AdaptiveMaxPool(AdaptiveAvgPool):
    """`xpnn.AdaptiveMaxPool` and `xpnn.GlobalMaxPool`, for any number of spatial axes."""

    def forward(self, x: Any) -> Any:
        """Maxima of bins."""
        return getattr(F, f"adaptive_max_pool{x.ndim - 2}d")(x, self.output_size)


class GlobalLpPool(_Shown):
    """`xpnn.GlobalLpPool`."""

    shown = ("norm_type",)

    def __init__(self, norm_type: float) -> None:
        super().__init__()
        self.norm_type = norm_type

    def forward(self, x: Any) -> Any:
        """The norm of each plane."""
        return torch.linalg.vector_norm(x, self.norm_type, dim=tuple(range(2, x.ndim)), keepdim=True)


class PositionEmbedding(_Shown):
    """`xpnn.PositionEmbedding`: adds ``weight (length, embedding_dim)`` to ``(N, L, embedding_dim)``."""

    shown = ("length", "embedding_dim")

    def __init__(self, length: int, embedding_dim: int) -> None:
        super().__init__()
        self.length, self.embedding_dim = length, embedding_dim
        self.weight = torch.nn.Parameter(torch.zeros(length, embedding_dim))

    def forward(self, x: Any) -> Any:
        """The sum."""
        return x + self.weight[: x.shape[1]]


class SelfAttention(torch.nn.MultiheadAttention):
    """`xpnn.MultiHeadAttention`: PyTorch's attention of a sequence ``(N, L, E)`` to itself."""

    def __init__(self, embed_dim: int, num_heads: int, bias: bool, dropout: float, causal: bool) -> None:
        super().__init__(embed_dim, num_heads, dropout=dropout, bias=bias, batch_first=True)
        self.bias, self.causal = bias, causal

    def forward(self, x: Any) -> Any:
        """The output, without the probabilities."""
        mask = None
        if self.causal:
            mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=x.dtype)
        return super().forward(x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[0]
