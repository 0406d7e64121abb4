"""Pooling to a given size: global (to one cell) and adaptive (to any).

An adaptive pool divides each axis of ``n`` cells into ``m`` bins; bin ``i`` holds the cells from ``floor(i*n/m)`` to
``ceil((i+1)*n/m)``, exclusive, so bins may overlap by a cell. A global pool is the case ``m = 1``. Averages, maxima
and Lp norms are those of pooling over windows: a maximum's
gradient goes to its first cell in row-major order, NaN wins, and an Lp norm of 0 has gradient 0.

Loops run over bins, never over cells.

Source of the bins: PyTorch, `torch.nn.AdaptiveAvgPool2d`.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar, TypeAlias, Unpack

from array_api_compat import device

from ...backends import operations_of
from ...backends.execution.blocks import concat_all
from ...backends.inputs import describe
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.arrays import (
    channels_first,
    channels_last,
    namespace,
    require_float,
    require_same_dtype,
    require_shape,
    scalar,
    zero,
)
from ..core.layer import Layer
from ..core.placement import Placement
from ..summary import Shape
from .lp import check_power, lp_norm, lp_norm_backward

# Most bins where there are fewer cells: loops run over bins.
MOST_BINS = 1 << 20

OutputSize: TypeAlias = int | Sequence[int | None] | None


def bins(n: int, m: int) -> list[slice]:
    """The ``m`` bins of an axis of ``n`` cells."""
    return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


@without_graph
def adaptive_avg_pool(x: Array, output_size: OutputSize, *, xp: Namespace | None = None) -> Array:
    """Averages over the bins of ``x (N, C, *S)``: ``(N, C, *output_size)``.

    ``output_size`` is an integer or one for each spatial axis; None keeps that axis. A bin is a box, so its average is
    taken along one axis after the other.
    """
    xp = namespace(xp, input=x)
    sizes = _sizes(tuple(x.shape), output_size)
    require_float(x)
    if sizes == tuple(x.shape[2:]):
        return xp.asarray(x, copy=True)
    prepared = _prepared(tuple(x.shape), sizes, x, xp)
    if prepared is not None:
        return channels_first(prepared.averages(channels_last(x, xp)), xp)
    for axis, m in enumerate(sizes, start=2):
        if m == x.shape[axis]:
            continue
        parts = [_mean(x[_along(axis, cells)], axis, xp) for cells in bins(x.shape[axis], m)]
        x = concat_all(parts, axis, xp)
    return x


@without_graph
def adaptive_avg_pool_backward(
    dy: Array, x_shape: tuple[int, ...], output_size: OutputSize, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `adaptive_avg_pool`: each cell gets ``dy / (cells of the bin)`` from every bin that holds it."""
    xp, x_shape = namespace(xp, dy=dy), checks.shape("x_shape", x_shape)
    sizes = _sizes(x_shape, output_size)
    require_float(dy, "dy")
    require_shape(dy, (*x_shape[:2], *sizes), "dy")
    if sizes == x_shape[2:]:
        return xp.asarray(dy, copy=True)
    prepared = _prepared(x_shape, sizes, dy, xp)
    if prepared is not None:
        return channels_first(prepared.averages_backward(channels_last(dy, xp)), xp)
    for axis, m in reversed(list(enumerate(sizes, start=2))):
        n = x_shape[axis]
        if m == n:
            continue
        shape = tuple(n if a == axis else size for a, size in enumerate(dy.shape))
        dx = xp.zeros(shape, dtype=dy.dtype, device=device(dy))
        for i, cells in enumerate(bins(n, m)):
            share = dy[_along(axis, slice(i, i + 1))] / scalar(cells.stop - cells.start, dy, xp)
            dx[_along(axis, cells)] += share
        dy = dx
    return dy


@without_graph
def adaptive_max_pool(
    x: Array, output_size: OutputSize, *, return_indices: bool = False, xp: Namespace | None = None
) -> Array | tuple[Array, Array]:
    """Maxima over the bins of ``x (N, C, *S)``: ``(N, C, *output_size)``.

    With ``return_indices`` also where they are: flat row-major indices into each plane, as PyTorch gives them.
    """
    xp = namespace(xp, input=x)
    sizes = _sizes(tuple(x.shape), output_size)
    require_float(x)
    checks.flag("return_indices", return_indices)
    prepared = _prepared(tuple(x.shape), sizes, x, xp)
    if prepared is not None:
        y, where = prepared.maxima(channels_last(x, xp))
        return (channels_first(y, xp), channels_first(where, xp)) if return_indices else channels_first(y, xp)
    lead, spatial = tuple(x.shape[:2]), tuple(x.shape[2:])
    values, indices = [], []
    for box in _boxes(spatial, sizes):
        inner = tuple(cells.stop - cells.start for cells in box)
        flat = xp.reshape(x[(slice(None), slice(None), *box)], (*lead, prod(inner)))
        first = xp.expand_dims(_first_maximum(flat, xp), axis=-1)
        values.append(xp.take_along_axis(flat, first, axis=-1))
        indices.append(_plane_index(first, inner, box, spatial, xp))
    y = xp.reshape(concat_all(values, -1, xp), (*lead, *sizes))
    return (y, xp.reshape(concat_all(indices, -1, xp), (*lead, *sizes))) if return_indices else y


@without_graph
def adaptive_max_pool_backward(
    dy: Array, indices: Array, x_shape: tuple[int, ...], output_size: OutputSize, *, xp: Namespace | None = None
) -> Array:
    """Gradient of `adaptive_max_pool`: ``dy`` of each bin at the cell that ``indices`` name, added up."""
    xp, x_shape = namespace(xp, dy=dy, indices=indices), checks.shape("x_shape", x_shape)
    sizes = _sizes(x_shape, output_size)
    require_float(dy, "dy")
    if not dtype_name(indices.dtype).startswith("int"):
        raise TypeError(f"indices must be integers, got {describe(indices)}")
    for array, name in ((dy, "dy"), (indices, "indices")):
        require_shape(array, (*x_shape[:2], *sizes), name)
    prepared = _prepared(x_shape, sizes, dy, xp)
    if prepared is not None and indices.dtype == xp.int64:
        return channels_first(prepared.maxima_backward(channels_last(dy, xp), channels_last(indices, xp)), xp)
    lead, spatial = x_shape[:2], x_shape[2:]
    upstream = xp.reshape(dy, (*lead, prod(sizes)))
    winner = xp.reshape(indices, (*lead, prod(sizes)))
    dx = xp.zeros((*lead, *spatial), dtype=dy.dtype, device=device(dy))
    plane = xp.reshape(xp.arange(prod(spatial), dtype=winner.dtype, device=device(dy)), (1, 1, *spatial))
    nothing = zero(dy, xp)
    for i, box in enumerate(_boxes(spatial, sizes)):
        place = (slice(None), slice(None), *box)
        one = (slice(None), slice(None), *(None for _ in spatial))
        dx[place] += xp.where(plane[place] == winner[:, :, i][one], upstream[:, :, i][one], nothing)
    return dx


def _prepared(shape: tuple[int, ...], sizes: tuple[int, ...], like: Array, xp: Namespace) -> Any:
    """A faster way for an input ``(N, C, *S)`` of that shape."""
    return operations_of(xp).prepare("adaptive pool", ((shape[0], *shape[2:], shape[1]), sizes), dtype_name(like.dtype))


def _first_maximum(x: Array, xp: Namespace) -> Array:
    """Index of the first maximum along the last axis, of the first NaN where there is one."""
    nan = xp.isnan(x)
    finite = xp.argmax(xp.where(nan, scalar(-float("inf"), x, xp), x), axis=-1)
    return xp.where(xp.any(nan, axis=-1), xp.argmax(xp.astype(nan, xp.int8), axis=-1), finite)


def _plane_index(
    flat: Array, inner: tuple[int, ...], box: tuple[slice, ...], spatial: tuple[int, ...], xp: Namespace
) -> Array:
    """A flat index into a box as one into the plane."""
    index, remaining = xp.zeros_like(flat), flat
    step = 1
    for size, cells, n in reversed(list(zip(inner, box, spatial, strict=True))):
        index = index + (remaining % size + cells.start) * step
        remaining = remaining // size
        step *= n
    return index


def _boxes(spatial: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[slice, ...]]:
    return list(product(*(bins(n, m) for n, m in zip(spatial, sizes, strict=True))))


def _along(axis: int, cells: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, cells, ...)


def _mean(x: Array, axis: int, xp: Namespace) -> Array:
    return xp.sum(x, axis=axis, keepdims=True) / scalar(x.shape[axis], x, xp)


def _sizes(shape: tuple[int, ...], output_size: OutputSize) -> tuple[int, ...]:
    """One output size for each spatial axis."""
    axes = len(shape) - 2
    if axes < 1 or 0 in shape[2:]:
        raise ValueError(f"input must have shape (N, C, *spatial) with cells along every spatial axis, got {shape}")
    given = _plain(output_size, axes)
    each = given if isinstance(given, tuple) else (given,) * axes
    sizes = tuple(n if m is None else m for n, m in zip(shape[2:], each, strict=True))
    if prod(sizes) > max(MOST_BINS, prod(shape[2:])):
        raise ValueError(
            f"output_size {output_size!r} asks for {prod(sizes):,} bins of {prod(shape[2:]):,} cells; at most "
            f"{MOST_BINS:,} are taken where cells are fewer"
        )
    return sizes


def _plain(output_size: OutputSize, axes: int) -> int | tuple[int | None, ...] | None:
    """The argument, sequences as tuples and integers as Python's own, if it suits that many spatial axes."""
    output_size = checks.listed(output_size)
    several = checks.is_sequence(output_size)
    given: Any = output_size if several else (output_size,) * axes
    if len(given) != axes or not all(m is None or (checks.is_integer(m) and m >= 1) for m in given):
        raise ValueError(
            f"output_size must be an integer >= 1 or None, or one for each of {axes} spatial axes, "
            f"got {checks.shown(output_size)}"
        )
    sizes = tuple(int(m) if checks.is_integer(m) else None for m in given)
    return sizes if several else sizes[0]


class _AdaptivePool(Layer):
    axes: ClassVar[int | None] = None
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("output_size", ...),)

    def __init__(self, output_size: OutputSize, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        output_size = checks.listed(output_size)
        axes = len(output_size) if self.axes is None and checks.is_sequence(output_size) else self.axes or 1
        self.output_size = _plain(output_size, axes)

    def _check(self, x: Array, what: str) -> None:
        super()._check(x, what)
        self._check_axes(tuple(x.shape), what)

    def _check_axes(self, shape: Shape, what: str) -> None:
        if self.axes is not None and len(shape) != self.axes + 2:
            raise ValueError(f"the {what} needs {self.axes + 2} axes (N, C, *spatial), got shape {shape}")

    def _pooled(self, shape: Shape) -> Shape:
        """The shape of the output."""
        self._check_axes(shape, "input")
        return (*shape[:2], *_sizes(shape, self.output_size))


class AdaptiveAvgPool(_AdaptivePool):
    """Averages over bins, to ``output_size``, for any number of spatial axes; see `adaptive_avg_pool`."""

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape)

    def _forward(self, x: Array) -> Array:
        self._save(tuple(x.shape))
        return adaptive_avg_pool(x, self.output_size, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x_shape,) = self._saved
        return adaptive_avg_pool_backward(dy, x_shape, self.output_size, xp=self.backend.xp)


class AdaptiveMaxPool(_AdaptivePool):
    """Maxima over bins, to ``output_size``, for any number of spatial axes; see `adaptive_max_pool`."""

    def _output_shape(self, shape: Shape) -> Shape:
        return self._pooled(shape)

    def _forward(self, x: Array) -> Array:
        y, indices = adaptive_max_pool(x, self.output_size, return_indices=True, xp=self.backend.xp)
        self._save(indices, tuple(x.shape))
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        indices, x_shape = self._saved
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
        return (*shape[:2], *_sizes(shape, 1))

    def _forward(self, x: Array) -> Array:
        _sizes(tuple(x.shape), 1)
        xp, axes = self.backend.xp, tuple(range(2, x.ndim))
        y = lp_norm(x, self.norm_type, lambda powers: xp.sum(powers, axis=axes, keepdims=True), xp)
        self._save(x, y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        x, y = self._saved
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
