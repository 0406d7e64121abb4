"""Pooling of any number of spatial dimensions.

With input ``x (N, C, *S)`` and windows of cells ``k`` at stride ``s`` and dilation ``d``::

    max      y[n, c, o] = max over k of  x[n, c, o*s + k*d]
             dx[n, c, i] = sum of dy[n, c, o] over the windows o whose maximum is cell i
    average  y[n, c, o] = sum over k of  x[n, c, o*s + k*d] / divisor[o]
             dx[n, c, i] = sum of dy[n, c, o] / divisor[o] over the windows o that contain cell i

A tie for the maximum goes to the first cell of the window in row-major order, as in PyTorch; cells of the padding
never win, NaN wins and propagates. The divisor of an average is the number of the window's cells that lie in the
padded input (in the input alone with ``count_include_pad=False``), so cells that ``ceil_mode`` adds never count.

All loops are over the few cells of a window; each step is one strided slice of the whole batch.

Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998.
"""

from typing import Any, ClassVar, Unpack

from array_api_compat import device

from ..backends.types import Array, Namespace
from .arrays import (
    channels_first,
    channels_last,
    namespace,
    pad,
    padded_shape,
    require_float,
    require_shape,
    unpad,
    zero,
)
from .base import Layer
from .geometry import Geometry, Padding, Size, check_padding, place_windows, plain, spread
from .placement import Placement


def max_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    xp: Namespace | None = None,
) -> tuple[Array, Array]:
    """Maximum over windows of ``x (N, C, *S)``, and where it is.

    Parameters
    ----------
    x : array
        float32 or float64, at least one spatial axis.
    kernel_size, stride, dilation : int or sequence of int
        Per axis; ``stride`` is the kernel size unless given.
    padding
        As in `conv`; padding cells never win, and no side may have more than half a kernel of them.
    ceil_mode : bool
        Round the output size up: a last window may reach beyond the padding.

    Returns
    -------
    y : array
        Shape ``(N, C, *O)``.
    cell : array
        Same shape, integer: the row-major index of the winning cell in its window.
    """
    xp = namespace(xp, x)
    geometry = _geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    cells = pad(channels_last(x, xp), geometry, -float("inf"), xp)
    index_dtype = _index_dtype(geometry.windows.cells, xp)
    best, cell = None, None
    for k, index in enumerate(geometry.windows.slices()):
        candidate = cells[index]
        if best is None:
            best = candidate
            cell = xp.zeros(best.shape, dtype=index_dtype, device=device(x))
            if geometry.is_padded:
                cell = cell + xp.astype(_first_inside(geometry, x, xp), index_dtype)
            continue
        # not (candidate <= best), so that NaN wins, but no second NaN after the first
        wins = xp.logical_and(xp.logical_not(candidate <= best), best == best)
        best = xp.where(wins, candidate, best)
        cell = xp.maximum(cell, xp.astype(wins, index_dtype) * k)
    if geometry.windows.cells == 1:
        best = xp.asarray(best, copy=True)
    return channels_first(best, xp), channels_first(cell, xp)


def max_pool_backward(
    dy: Array,
    cell: Array,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `max_pool`: ``dx`` for ``dy (N, C, *O)`` and the winning cells that `max_pool` gave."""
    xp = namespace(xp, dy, cell)
    require_float(dy, "dy")
    geometry = _place(tuple(x_shape), kernel_size, stride, padding, dilation, ceil_mode)
    require_shape(dy, (x_shape[0], x_shape[1], *geometry.windows.count), "dy")
    require_shape(cell, tuple(dy.shape), "cell")
    upstream, winner = channels_last(dy, xp), channels_last(cell, xp)
    nothing = zero(dy, xp)

    def share(k: int) -> Array:
        return xp.where(winner == k, upstream, nothing)

    return _scatter(share, dy, x_shape, geometry, xp)


def avg_pool(
    x: Array,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    xp: Namespace | None = None,
) -> Array:
    """Average over windows of ``x (N, C, *S)``: ``(N, C, *O)``.

    Parameters are those of `max_pool`; with ``count_include_pad=False`` an average is over the window's cells inside
    the input only.
    """
    xp = namespace(xp, x)
    geometry = _geometry(x, kernel_size, stride, padding, 1, ceil_mode)
    cells = pad(channels_last(x, xp), geometry, 0.0, xp)
    total = None
    for index in geometry.windows.slices():
        total = cells[index] if total is None else total + cells[index]
    return channels_first(total / _divisor(geometry, x, tuple(x.shape[2:]), count_include_pad, xp), xp)


def avg_pool_backward(
    dy: Array,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `avg_pool`: ``dx`` for ``dy (N, C, *O)``."""
    xp = namespace(xp, dy)
    require_float(dy, "dy")
    geometry = _place(tuple(x_shape), kernel_size, stride, padding, 1, ceil_mode)
    require_shape(dy, (x_shape[0], x_shape[1], *geometry.windows.count), "dy")
    share = channels_last(dy, xp) / _divisor(geometry, dy, tuple(x_shape[2:]), count_include_pad, xp)
    return _scatter(lambda k: share, dy, x_shape, geometry, xp)


def _geometry(
    x: Array, kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    require_float(x)
    return _place(tuple(x.shape), kernel_size, stride, padding, dilation, ceil_mode)


def _place(
    shape: tuple[int, ...], kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    axes = len(shape) - 2
    if axes < 1:
        raise ValueError(f"pooling takes (N, C, *spatial) with at least one spatial axis, got shape {shape}")
    kernel = spread(kernel_size, axes, "kernel_size")
    geometry = place_windows(
        shape[2:],
        kernel,
        kernel if stride is None else spread(stride, axes, "stride"),
        padding,
        spread(dilation, axes, "dilation"),
        ceil_mode,
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, geometry.windows.dilation, strict=True)]
    if any(max(pair) * 2 > r for pair, r in zip(geometry.padding, reach, strict=True)):
        raise ValueError(f"padding {padding!r} is more than half of the window's {tuple(reach)} cells")
    if not all(_sees_input(axis, n, geometry) for axis, n in enumerate(shape[2:])):
        raise ValueError(f"input {shape[2:]} with padding {geometry.padding}: a window would hold padding only")
    return geometry


def _sees_input(axis: int, n: int, geometry: Geometry) -> bool:
    """Whether every window has a cell of the input along an axis.

    Padding of at most half a window makes sure of it, unless dilated cells step over a short input.
    """
    w, before = geometry.windows, geometry.padding[axis][0]
    k, s, d = w.kernel[axis], w.stride[axis], w.dilation[axis]
    if n >= d or not n:
        return n > 0
    return all(any(0 <= o * s + i * d - before < n for i in range(k)) for o in range(w.count[axis]))


def _scatter(share: Any, dy: Array, x_shape: tuple[int, ...], geometry: Geometry, xp: Namespace) -> Array:
    """Add ``share(k) (N, *O, C)`` to the input cells that kernel cell ``k`` reads, for all ``k``."""
    inner = (x_shape[0], *x_shape[2:], x_shape[1])
    dx = xp.zeros(padded_shape(inner, geometry), dtype=dy.dtype, device=device(dy))
    for k, index in enumerate(geometry.windows.slices()):
        dx[index] += share(k)
    return channels_first(unpad(dx, geometry, tuple(x_shape[2:])), xp)


def _index_dtype(cells: int, xp: Namespace) -> Any:
    return xp.int8 if cells <= 127 else xp.int32


def _first_inside(geometry: Geometry, x: Array, xp: Namespace) -> Array:
    """For each window the row-major index of its first cell that is not padding, ``(1, *O, 1)``."""
    w = geometry.windows
    first = None
    for axis, (k, s, d, o) in enumerate(zip(w.kernel, w.stride, w.dilation, w.count, strict=True)):
        before = geometry.padding[axis][0]
        start = xp.arange(o, dtype=xp.int32, device=device(x)) * s - before
        skipped = -xp.minimum(start // d, xp.zeros_like(start))
        skipped = _along(skipped, axis, len(w.count), xp)
        first = skipped if first is None else first * k + skipped
    return first


def _divisor(
    geometry: Geometry, like: Array, spatial: tuple[int, ...], count_include_pad: bool, xp: Namespace
) -> Array:
    """Cells that each window's average counts, ``(1, *O, 1)``, or 0-d where all count the same."""
    w = geometry.windows
    full = count_include_pad and not any(geometry.overhang)
    if full or not geometry.is_padded:
        return xp.full((), w.cells, dtype=like.dtype, device=device(like))
    counts = None
    for axis, (k, s, o) in enumerate(zip(w.kernel, w.stride, w.count, strict=True)):
        before, after = geometry.padding[axis]
        low, high = (0, before + spatial[axis] + after) if count_include_pad else (before, before + spatial[axis])
        start = xp.arange(o, dtype=xp.int32, device=device(like)) * s
        inside = xp.clip(start + k, low, high) - xp.clip(start, low, high)
        inside = _along(xp.astype(inside, like.dtype), axis, len(w.count), xp)
        counts = inside if counts is None else counts * inside
    return counts


def _along(values: Array, axis: int, axes: int, xp: Namespace) -> Array:
    """Lay a vector along one spatial axis of ``(N, *spatial, C)``."""
    return xp.reshape(values, (1, *(values.shape[0] if a == axis else 1 for a in range(axes)), 1))


class _Pool(Layer):
    axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.kernel_size = plain(kernel_size, self.axes, "kernel_size")
        self.stride = None if stride is None else plain(stride, self.axes, "stride")
        self.padding = check_padding(padding, self.axes)

    def _check(self, x: Array, what: str) -> None:
        super()._check(x, what)
        if x.ndim != self.axes + 2:
            raise ValueError(f"the {what} needs {self.axes + 2} axes (N, C, *spatial), got shape {tuple(x.shape)}")


class MaxPool(_Pool):
    """Maximum over windows; see `max_pool`. Use `MaxPool1d`, `MaxPool2d` or `MaxPool3d`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode
        As in `max_pool`.
    **placement
        See `xpnn.layers.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("kernel_size", ...),
        ("stride", None),
        ("padding", 0),
        ("dilation", 1),
        ("ceil_mode", False),
    )

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(kernel_size, stride, padding, **placement)
        self.dilation, self.ceil_mode = plain(dilation, self.axes, "dilation"), bool(ceil_mode)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, _ in self.signature} | {"xp": self.backend.xp}

    def _forward(self, x: Array) -> Array:
        y, cell = max_pool(x, **self._options)
        self._save(cell, tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        cell, x_shape = self._saved
        return max_pool_backward(dy, cell, x_shape, **self._options)


class AvgPool(_Pool):
    """Average over windows; see `avg_pool`. Use `AvgPool1d`, `AvgPool2d` or `AvgPool3d`.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As in `avg_pool`.
    **placement
        See `xpnn.layers.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("kernel_size", ...),
        ("stride", None),
        ("padding", 0),
        ("ceil_mode", False),
        ("count_include_pad", True),
    )

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(kernel_size, stride, padding, **placement)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, _ in self.signature} | {"xp": self.backend.xp}

    def _forward(self, x: Array) -> Array:
        y = avg_pool(x, **self._options)
        self._save(tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x_shape,) = self._saved
        return avg_pool_backward(dy, x_shape, **self._options)


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
