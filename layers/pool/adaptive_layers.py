"""The layers of pooling to a given size: adaptive, and global, which is to one cell."""

from typing import Any, ClassVar, Unpack

from ...common import checks
from ...common.types import Array
from ..core.array_checks import require_same_dtype
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from .adaptive_average import adaptive_avg_pool, adaptive_avg_pool_backward
from .adaptive_bins import OutputSize, check_output_size, output_sizes
from .adaptive_maximum import adaptive_max_pool, adaptive_max_pool_backward
from .lp import check_power, lp_norm, lp_norm_backward


class _AdaptivePool(Layer):
    axes: ClassVar[int | None] = None
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("output_size", ...),)

    def __init__(self, output_size: OutputSize, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        output_size = checks.listed(output_size)
        axes = len(output_size) if self.axes is None and checks.is_sequence(output_size) else self.axes or 1
        self.output_size = check_output_size(output_size, axes)

    def _check_array(self, x: Array, what: str) -> None:
        super()._check_array(x, what)
        self._check_axes(tuple(x.shape), what)

    def _check_axes(self, shape: Shape, what: str) -> None:
        if self.axes is not None and len(shape) != self.axes + 2:
            raise ValueError(f"the {what} must have {self.axes + 2} axes (N, C, *spatial), got shape {shape}")

    def _pooled(self, shape: Shape) -> Shape:
        """The shape of the output."""
        self._check_axes(shape, "input")
        return (*shape[:2], *output_sizes(shape, self.output_size))


class AdaptiveAvgPool(_AdaptivePool):
    """Averages over bins, to ``output_size``, for any number of spatial axes; see `adaptive_avg_pool`."""

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape)

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(tuple(x.shape))
        return adaptive_avg_pool(x, self.output_size, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x_shape,) = self.saved
        return adaptive_avg_pool_backward(dy, x_shape, self.output_size, xp=self.backend.xp)


class AdaptiveMaxPool(_AdaptivePool):
    """Maxima over bins, to ``output_size``, for any number of spatial axes; see `adaptive_max_pool`."""

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape)

    def _forward(self, x: Array) -> Array:
        y, indices = adaptive_max_pool(x, self.output_size, return_indices=True, xp=self.backend.xp)
        self.save_for_backward(indices, tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        indices, x_shape = self.saved
        return adaptive_max_pool_backward(dy, indices, x_shape, self.output_size, xp=self.backend.xp)


class GlobalAvgPool(AdaptiveAvgPool):
    """The average of each plane: ``(N, C, *S)`` to ``(N, C, 1, ...)``."""

    signature = ()

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(1, **placement)


class GlobalMaxPool(AdaptiveMaxPool):
    """The maximum of each plane: ``(N, C, *S)`` to ``(N, C, 1, ...)``."""

    signature = ()

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(1, **placement)


class GlobalLpPool(Layer):
    """The Lp norm of each plane, ``(sum |x|^p)^(1/p)``: ``(N, C, *S)`` to ``(N, C, 1, ...)``.

    Parameters
    ----------
    norm_type : float
        ``p``, at least 1; 2 unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("norm_type", 2.0),)

    def __init__(self, norm_type: float = 2.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.norm_type = check_power(norm_type)

    def _output_shape(self, shape: Shape) -> Shape:
        return (*shape[:2], *output_sizes(shape, 1))

    def _forward(self, x: Array) -> Array:
        output_sizes(tuple(x.shape), 1)
        xp, axes = self.backend.xp, tuple(range(2, x.ndim))
        y = lp_norm(x, self.norm_type, lambda powers: xp.sum(powers, axis=axes, keepdims=True), xp)
        self.save_for_backward(x, y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        x, y = self.saved
        require_same_dtype(dy=dy, input=x)
        return lp_norm_backward(dy, x, y, self.norm_type, self.backend.xp)


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3
