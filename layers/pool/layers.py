"""The layers of maximum, average and Lp pooling over windows."""

from typing import Any, ClassVar, Unpack

from ...common import checks
from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..windows.geometry import Geometry, Padding, Size, check_padding
from .average import avg_pool, avg_pool_backward, check_divisor
from .geometry import pool_geometry, pool_geometry_of_shape
from .lp import check_power, lp_pool, lp_pool_backward
from .maximum import max_cells, maxima, plane_indices, prepared_max, scatter_maxima


class _Pool(Layer):
    axes: ClassVar[int]

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, _ in self.signature} | {"xp": self.backend.xp}

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.kernel_size = checks.size("kernel_size", kernel_size, self.axes)
        self.stride = None if stride is None else checks.size("stride", stride, self.axes)
        self.padding = check_padding(padding, self.axes)

    def _check_array(self, x: Array, what: str) -> None:
        super()._check_array(x, what)
        self._check_axes(tuple(x.shape), what)

    def _check_axes(self, shape: Shape, what: str) -> None:
        if len(shape) != self.axes + 2:
            raise ValueError(f"the {what} must have {self.axes + 2} axes (N, C, *spatial), got shape {shape}")

    def _pooled(self, shape: Shape, dilation: Size, ceil_mode: bool) -> Shape:
        """The shape of the output."""
        self._check_axes(shape, "input")
        geometry = pool_geometry_of_shape(shape, self.kernel_size, self.stride, self.padding, dilation, ceil_mode)
        return (*shape[:2], *geometry.windows.count)


class MaxPool(_Pool):
    """Maximum over windows; see `max_pool`. Use `MaxPool1d`, `MaxPool2d` or `MaxPool3d`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, return_indices, ceil_mode
        As in `max_pool`, in PyTorch's order. With ``return_indices`` `forward` returns ``(y, indices)``.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("kernel_size", ...),
        ("stride", None),
        ("padding", 0),
        ("dilation", 1),
        ("return_indices", False),
        ("ceil_mode", False),
    )
    accepts_stored = True

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(kernel_size, stride, padding, **placement)
        self.dilation = checks.size("dilation", dilation, self.axes)
        self.return_indices = checks.flag("return_indices", return_indices)
        self.ceil_mode = checks.flag("ceil_mode", ceil_mode)
        self._indices: Array | None = None

    def forward(self, x: Array) -> Any:
        """The maxima of ``x (N, C, *S)``, and with ``return_indices`` their indices."""
        y = super().forward(x)
        indices, self._indices = self._indices, None
        return (y, indices) if self.return_indices else y

    def _geometry(self, x: Array) -> Geometry:
        return pool_geometry(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape, self.dilation, self.ceil_mode)

    def _forward(self, x: Array) -> Array:
        geometry, b = self._geometry(x), self.backend
        if b.numerics == "exact" and prepared_max(x, tuple(x.shape), geometry, b.xp) is None:
            x = b.up(x)
        if not (self.grad_enabled or self.return_indices):
            return maxima(x, geometry, self.backend.xp)
        y, cell = max_cells(x, geometry, self.backend.xp)
        if self.return_indices:
            self._indices = plane_indices(cell, geometry, tuple(x.shape[2:]), self.backend.xp)
        self.save_for_backward(cell, geometry, tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        cell, geometry, x_shape = self.saved
        b = self.backend
        if b.numerics == "exact" and prepared_max(dy, x_shape, geometry, b.xp) is None:
            dy = b.up(dy)
        return scatter_maxima(dy, cell, x_shape, geometry, self.backend.xp)


class AvgPool(_Pool):
    """Average over windows; see `avg_pool`. Use `AvgPool1d`, `AvgPool2d` or `AvgPool3d`.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation
        As in `avg_pool`. All but the last are in PyTorch's order; PyTorch has no dilation here.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("kernel_size", ...),
        ("stride", None),
        ("padding", 0),
        ("ceil_mode", False),
        ("count_include_pad", True),
        ("divisor_override", None),
        ("dilation", 1),
    )

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        dilation: Size = 1,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(kernel_size, stride, padding, **placement)
        self.ceil_mode = checks.flag("ceil_mode", ceil_mode)
        self.count_include_pad = checks.flag("count_include_pad", count_include_pad)
        self.divisor_override = check_divisor(divisor_override)
        self.dilation = checks.size("dilation", dilation, self.axes)

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape, self.dilation, self.ceil_mode)

    def _forward(self, x: Array) -> Array:
        y = avg_pool(x, **self._options)
        self.save_for_backward(tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x_shape,) = self.saved
        return avg_pool_backward(dy, x_shape, **self._options)


class LpPool(_Pool):
    """Lp norm over windows; see `lp_pool`. Use `LpPool1d`, `LpPool2d` or `LpPool3d`.

    Parameters
    ----------
    norm_type : float
        ``p``, at least 1.
    kernel_size, stride, ceil_mode, padding, dilation
        As in `lp_pool`. The first three are in PyTorch's order; PyTorch has no others.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("norm_type", ...),
        ("kernel_size", ...),
        ("stride", None),
        ("ceil_mode", False),
        ("padding", 0),
        ("dilation", 1),
    )

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        padding: Padding = 0,
        dilation: Size = 1,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(kernel_size, stride, padding, **placement)
        self.norm_type = check_power(norm_type)
        self.dilation = checks.size("dilation", dilation, self.axes)
        self.ceil_mode = checks.flag("ceil_mode", ceil_mode)

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape, self.dilation, self.ceil_mode)

    def _forward(self, x: Array) -> Array:
        y = lp_pool(x, **self._options)
        self.save_for_backward(x, y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        x, y = self.saved
        return lp_pool_backward(dy, x, y, **self._options)


class MaxPool1d(MaxPool):
    """`MaxPool` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class MaxPool2d(MaxPool):
    """`MaxPool` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class MaxPool3d(MaxPool):
    """`MaxPool` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3


class AvgPool1d(AvgPool):
    """`AvgPool` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class AvgPool2d(AvgPool):
    """`AvgPool` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class AvgPool3d(AvgPool):
    """`AvgPool` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3


class LpPool1d(LpPool):
    """`LpPool` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class LpPool2d(LpPool):
    """`LpPool` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class LpPool3d(LpPool):
    """`LpPool` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3
