"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift.

The layers differ in the cells that one mean runs over, which is what `Layout` says. With ``m`` such cells, and weight
``w`` and bias ``b`` laid along the axes where they have entries::

    mean = sum(x) / m        var = sum((x - mean)^2) / m
    xhat = (x - mean) / sqrt(var + eps)        y = xhat * w + b

    dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)        with g = dy * w
    dweight = sum(dy * xhat)        dbias = sum(dy)                     over all cells that share the entry

With a mean and variance that are given (running statistics) these are constants: ``dx = g / sqrt(var + eps)``. A NaN or
an infinity makes all of its group NaN, as does a variance beyond the dtype's range: in float32, of numbers from 1e19.

============== ===================== ================================ =====================
layer          input                 one group, of one mean           weight, bias
============== ===================== ================================ =====================
batch norm     ``(N, C, *S)``        a channel, all samples           ``(C,)``
instance norm  ``(N, C, *S)``        a channel of a sample            ``(C,)``
group norm     ``(N, C, *S)``        ``C/G`` channels of a sample     ``(C,)``
layer norm     ``(..., *D)``         the last axes ``D``              ``D``
============== ===================== ================================ =====================

Sources: S. Ioffe and C. Szegedy, "Batch normalization", 2015; J. L. Ba et al., "Layer normalization", 2016; D. Ulyanov
et al., "Instance normalization", 2016; Y. Wu and K. He, "Group normalization", 2018.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ...backends import operations_of
from ...backends.execution.team import current_team, rows_of_all
from ...backends.memory_order import inverse
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.arrays import channels_first, channels_last, memory_axes, require_same_dtype, require_shape, scalar
from ..core.layer import Layer
from .batch_rows import Rows, in_range, normalise_rows, normalise_rows_backward

# Of the arrays of a norm those that need not be there.
OPTIONAL = ("weight", "bias", "mean", "var")


@dataclass(frozen=True)
class Layout:
    """Which cells of an input share a mean, and which share an entry of the weight.

    Attributes
    ----------
    grid : tuple of int
        Shape in which the input is seen.
    axes : tuple of int
        Axes of the grid that one mean runs over.
    weight : tuple of int
        Shape of weight and bias.
    laid : tuple of int
        Shape in which they are laid along the grid: 1 along axes where they are constant.
    """

    grid: tuple[int, ...]
    axes: tuple[int, ...]
    weight: tuple[int, ...]
    laid: tuple[int, ...]

    @property
    def cells(self) -> int:
        """How many values one mean is of."""
        cells = prod(self.grid[axis] for axis in self.axes)
        return rows_of_all(cells) if 0 in self.axes else cells

    def along(self, vector: Array, order: tuple[int, ...], xp: Namespace) -> Array:
        """Weight, bias or statistics laid along the grid, whose axes are in another order."""
        return xp.permute_dims(xp.reshape(vector, self.laid), order)


class Normal(NamedTuple):
    """An input normalised, on the layout's grid with its axes in the order of memory, and what did it."""

    order: tuple[int, ...]
    values: Array
    inverse_std: Array
    mean: Array
    var: Array


class Prepared(NamedTuple):
    """What normalised an input in the backend's own way, and what it found."""

    kernels: Any
    found: Any

    @property
    def mean(self) -> Array:
        """Of each channel, ``(C,)``."""
        return self.found.mean

    @property
    def var(self) -> Array:
        """Of each channel, ``(C,)``, over the number of values."""
        return self.found.var


def batch_layout(shape: tuple[int, ...]) -> Layout:
    """A mean for each channel of ``(N, C, *S)``."""
    _require_channels(shape)
    return Layout(shape, (0, *range(2, len(shape))), (shape[1],), (1, shape[1], *(1,) * (len(shape) - 2)))


def instance_layout(shape: tuple[int, ...]) -> Layout:
    """A mean for each channel of each sample of ``(N, C, *S)``."""
    if len(shape) < 3:
        raise ValueError(f"input needs shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    return Layout(shape, tuple(range(2, len(shape))), (shape[1],), (1, shape[1], *(1,) * (len(shape) - 2)))


def group_layout(shape: tuple[int, ...], num_groups: int) -> Layout:
    """A mean for each of ``num_groups`` groups of channels of each sample of ``(N, C, *S)``."""
    _require_channels(shape)
    num_groups = checks.integer("num_groups", num_groups, 1)
    if shape[1] % num_groups:
        raise ValueError(f"{shape[1]} channels can't be split into {num_groups} groups (shape {shape})")
    split = (num_groups, shape[1] // num_groups)
    grid = (shape[0], *split, *shape[2:])
    return Layout(grid, tuple(range(2, len(grid))), (shape[1],), (1, *split, *(1,) * (len(shape) - 2)))


def layer_layout(shape: tuple[int, ...], normalized_shape: tuple[int, ...]) -> Layout:
    """A mean over the last axes, which must be ``normalized_shape``."""
    first = len(shape) - len(normalized_shape)
    if not normalized_shape or first < 0 or shape[first:] != normalized_shape:
        raise ValueError(f"input needs shape (..., {', '.join(map(str, normalized_shape))}), got {shape}")
    return Layout(shape, tuple(range(first, len(shape))), normalized_shape, (1,) * first + normalized_shape)


def _require_channels(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise ValueError(f"input needs shape (N, C, ...), got {shape}")


def require_several(layout: Layout) -> None:
    """Raise `ValueError` where a mean is of one value, which minus it would be 0 whatever it was."""
    if layout.cells == 1:
        raise ValueError(
            f"the statistics of a channel need more than 1 value, the input has 1 for each (shape {layout.grid}); "
            "give a larger one, or use running statistics, with eval()"
        )


def total(x: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """Sum over axes, which stay with size 1."""
    return operations_of(xp).total(x, axes)


def normalise(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    layout: Layout,
    *,
    mean: Array | None = None,
    var: Array | None = None,
    eps: float,
    xp: Namespace,
) -> tuple[Array, Normal | Rows | Prepared]:
    """``y``, and what `normalise_backward` needs; with the mean and variance of ``x`` where none are given.

    The variance takes two passes, the mean first: a difference of sums of squares loses it where the mean is large. The
    mean takes two as well: what rounding left of it would be divided by the root of ``eps`` where all values are equal,
    and equal values of 1000.1 in float32 would come out as -0.019.
    """
    require_same_dtype(input=x, weight=weight, bias=bias, mean=mean, var=var)
    eps = float(checks.number("eps", eps, least=0.0))
    if (mean is None) != (var is None):
        raise ValueError("mean and var are given together or not at all")
    for name, array in (("weight", weight), ("bias", bias), ("mean", mean), ("var", var)):
        if array is not None:
            require_shape(array, layout.weight, name)
    given = None if mean is None or var is None else (mean, var)
    prepared = _prepared(x, layout, xp)
    if prepared is not None:
        y, found = prepared.forward(channels_last(x, xp), weight, bias, given, eps)
        return channels_first(y, xp), Prepared(prepared, found)
    rows = _batch_rows(x, layout, xp)
    if rows is not None:
        return normalise_rows(x, rows, weight, bias, given, eps, xp)
    grid = xp.reshape(x, layout.grid)
    order = memory_axes(grid, xp)
    grid, axes = xp.permute_dims(grid, order), _moved(layout.axes, order)
    if mean is None:
        # The mean of no values is used by none; divided by 1 it is no NaN to warn of.
        cells = scalar(max(layout.cells, 1), x, xp)
        near = total(grid, axes, xp) / cells
        centred = grid - near
        rest = total(centred, axes, xp) / cells
        mean, centred = near + rest, centred - rest
        var = total(centred * centred, axes, xp) / cells
    else:
        mean, var = layout.along(mean, order, xp), layout.along(var, order, xp)
        centred = grid - mean
    inverse_std = 1.0 / xp.sqrt(var + eps)
    if given is None:
        inverse_std = in_range(inverse_std, var, xp)
    values = centred * inverse_std
    y = values if weight is None else values * layout.along(weight, order, xp)
    if bias is not None:
        y = y + layout.along(bias, order, xp)
    back = inverse(order)
    y = xp.reshape(xp.permute_dims(y, back), tuple(x.shape))
    return y, Normal(order, values, inverse_std, xp.permute_dims(mean, back), xp.permute_dims(var, back))


def _moved(axes: Iterable[int], order: tuple[int, ...]) -> tuple[int, ...]:
    """Where these axes are once they are permuted."""
    return tuple(sorted(order.index(axis) for axis in axes))


def _batch_rows(x: Array, layout: Layout, xp: Namespace) -> Array | None:
    """The input as rows of channels, where each channel has a mean and the backend has a fast way with rows."""
    return operations_of(xp).channel_rows(x) if _is_by_channel(x, layout) else None


def _prepared(x: Array, layout: Layout, xp: Namespace) -> Any:
    """A faster way to normalise each channel."""
    if not _is_by_channel(x, layout):
        return None
    return operations_of(xp).prepare("batch norm", (layout.cells, x.shape[1]), dtype_name(x.dtype))


def _is_by_channel(x: Array, layout: Layout) -> bool:
    """Whether each channel has a mean, and no other worker shares it."""
    channels = (1, *layout.weight, *(1,) * (x.ndim - 2))
    alone = current_team() is None and tuple(x.shape) == layout.grid and layout.laid == channels
    return alone and layout.axes == (0, *range(2, x.ndim))


def normalise_backward(
    dy: Array,
    normal: Normal | Rows | Prepared,
    weight: Array | None,
    layout: Layout,
    *,
    constant: bool = False,
    input_grad: bool = True,
    xp: Namespace,
) -> tuple[Array | None, Array, Array]:
    """``(dx, dweight, dbias)``; with ``constant`` the statistics did not depend on the input.

    Sums run over the cells that share both a mean and an entry of the weight first; all others are sums of these.
    """
    if isinstance(normal, Prepared):
        dx, dweight, dbias = normal.kernels.backward(channels_last(dy, xp), normal.found, weight, constant, input_grad)
        return None if dx is None else channels_first(dx, xp), dweight, dbias
    if isinstance(normal, Rows):
        return normalise_rows_backward(dy, normal, weight, constant, input_grad, xp)
    order = normal.order
    back, grid = inverse(order), xp.permute_dims(xp.reshape(dy, layout.grid), order)
    axes = _moved(layout.axes, order)
    flat = {order.index(axis) for axis, size in enumerate(layout.laid) if size == 1}
    shared = tuple(axis for axis in axes if axis in flat)
    sums = total(grid, shared, xp), total(grid * normal.values, shared, xp)
    totals = (xp.permute_dims(total(s, tuple(flat - {*shared}), xp), back) for s in sums)
    dbias, dweight = (xp.reshape(each, layout.weight) for each in totals)
    if not input_grad:
        return None, dweight, dbias
    # A weight that is constant within a group stays outside of the means; one that varies goes in.
    varied = tuple(axis for axis in axes if axis not in flat)
    scale = normal.inverse_std
    if weight is not None:
        laid = layout.along(weight, order, xp)
        if varied:
            grid, sums = grid * laid, (sums[0] * laid, sums[1] * laid)
        else:
            scale = scale * laid
    if not constant:
        cells = scalar(max(layout.cells, 1), dy, xp)
        mean_g, mean_gx = (total(s, varied, xp) / cells for s in sums)
        grid = grid - mean_g - normal.values * mean_gx
    dx = grid * scale
    return xp.reshape(xp.permute_dims(dx, back), tuple(dy.shape)), dweight, dbias


def differentiate(
    dy: Array,
    x: Array,
    weight: Array | None,
    layout: Layout,
    *,
    mean: Array | None = None,
    var: Array | None = None,
    eps: float,
    input_grad: bool,
    xp: Namespace,
) -> tuple[Array | None, Array, Array]:
    """`normalise_backward` from the input, after checking that all fit together."""
    require_same_dtype(dy=dy, input=x, weight=weight)
    require_shape(dy, tuple(x.shape), "dy")
    if weight is not None:
        require_shape(weight, layout.weight, "weight")
    _, normal = normalise(x, None, None, layout, mean=mean, var=var, eps=eps, xp=xp)
    given, wanted = mean is not None, checks.flag("input_grad", input_grad)
    return normalise_backward(dy, normal, weight, layout, constant=given, input_grad=wanted, xp=xp)


class Norm(Layer):
    """Base of the layers that normalise; a subclass says over what and gives the statistics, if it has them."""

    eps: float

    def _normalise(
        self, x: Array, layout: Layout, mean: Array | None = None, var: Array | None = None
    ) -> tuple[Array, Normal | Rows | Prepared]:
        weight, bias, xp = self._value("weight"), self._value("bias"), self.backend.xp
        y, normal = normalise(x, weight, bias, layout, mean=mean, var=var, eps=self.eps, xp=xp)
        self._save(normal, layout)
        return y, normal

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        normal, layout = self._saved
        weight, xp = self._value("weight"), self.backend.xp
        dx, dweight, dbias = normalise_backward(dy, normal, weight, layout, input_grad=input_grad, xp=xp)
        self._accumulate("weight", dweight)
        self._accumulate("bias", dbias)
        return dx
