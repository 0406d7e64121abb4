"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift.

The layers differ in the values over which a mean is computed, which `Layout` describes. With ``m`` such values, and
weight ``w`` and bias ``b`` broadcast along the other axes::

    mean = sum(x) / m        var = sum((x - mean)^2) / m
    xhat = (x - mean) / sqrt(var + eps)        y = xhat * w + b

    dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)        with g = dy * w
    dweight = sum(dy * xhat)        dbias = sum(dy)                     over all values that share the entry

A mean and variance that are given (running statistics) are constants: ``dx = g / sqrt(var + eps)``. A NaN or infinity
makes all values of its mean NaN, as does a variance beyond the dtype's range: in float32, of numbers from 1e19.

============== ===================== ================================ =====================
layer          input                 values of one mean               weight, bias
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
from typing import Any, NamedTuple, TypeAlias, cast

from ...backends import operations_of
from ...backends.memory_order import inverse
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import require_same_dtype, require_shape
from ..core.axis_order import memory_axes
from ..core.elementwise import scalar
from ..core.layer import Layer
from ..core.needed_gradients import wanted_of
from .batch_norm_rows import NormalisedRows, in_range, normalise_rows, normalise_rows_backward
from .by_engine import (
    NormalisedByKernels,
    engine_backward,
    is_by_channel,
    normalise_by_engine,
    prepared,
)
from .layout import Layout

# Names of the arrays of a norm that may be None.
OPTIONAL = ("weight", "bias", "mean", "var")


class Normalised(NamedTuple):
    """A normalised input, on the layout's grid with its axes in memory order, and its statistics."""

    order: tuple[int, ...]
    values: Array
    inverse_std: Array
    mean: Array
    var: Array


AnyNormalised: TypeAlias = Normalised | NormalisedRows | NormalisedByKernels


def total(x: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """Sum over axes, which are kept with size 1."""
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
    relu: bool = False,
    xp: Namespace,
) -> tuple[Array, AnyNormalised]:
    """``y``, and the state for `normalise_backward`; with the mean and variance of ``x`` if none are given.

    With ``relu`` an engine may return the ReLU of ``y``; `is_rectified` tells whether it did.

    The variance is computed in a second pass, from differences to the mean: a difference of sums of squares is
    inaccurate where the mean is large. The mean is computed in two passes too: if all values are equal, its rounding
    error is divided by the root of ``eps``, and equal values of 1000.1 in float32 would be normalised to -0.019.
    """
    eps = float(checks.number("eps", eps, least=0.0))
    if (mean is None) != (var is None):
        raise ValueError("mean and var must be given together or not at all")
    _require(layout, x, weight=weight, bias=bias, mean=mean, var=var)
    given = None if mean is None or var is None else (mean, var)
    found = normalise_by_engine(x, weight, bias, mean, var, layout, eps, relu, xp)
    if found is not None:
        return found
    rows = _batch_rows(x, layout, xp)
    if rows is not None:
        return normalise_rows(x, rows, weight, bias, given, eps, xp)
    grid = xp.reshape(x, layout.grid)
    order = memory_axes(grid, xp)
    grid, axes = xp.permute_dims(grid, order), _permuted(layout.axes, order)
    if given is None:
        # The mean of no values is not used; divided by 1 instead of 0 it does not warn of NaN.
        cells = scalar(max(layout.cells, 1), x, xp)
        near = total(grid, axes, xp) / cells
        centred = grid - near
        correction = total(centred, axes, xp) / cells
        mean, centred = near + correction, centred - correction
        var = total(centred * centred, axes, xp) / cells
    else:
        mean, var = (layout.along(each, order, xp) for each in given)
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
    return y, Normalised(order, values, inverse_std, xp.permute_dims(mean, back), xp.permute_dims(var, back))


def _require(layout: Layout, x: Array | None, **vectors: Array | None) -> None:
    """Raise unless all arrays have one dtype and the vectors the shape of the weight."""
    require_same_dtype(input=x, **vectors)
    for name, array in vectors.items():
        if array is not None:
            require_shape(array, layout.weight, name)


def normalise_backward(
    dy: Array,
    normalised: AnyNormalised,
    weight: Array | None,
    layout: Layout,
    *,
    constant: bool = False,
    input_grad: bool = True,
    parameter_grads: bool = True,
    xp: Namespace,
) -> tuple[Array | None, Array | None, Array | None]:
    """``(dx, dweight, dbias)``; with ``constant`` the statistics did not depend on the input.

    Gradients that are not wanted may be None. Without those of the parameters, the sums over the input are left out if
    the statistics are constant, because only then ``dx`` does not need them; engines always compute them.

    The first sums are over the values that share both a mean and an entry of the weight; all others are sums of these.
    """
    if not (input_grad or parameter_grads):
        return None, None, None
    if isinstance(normalised, NormalisedByKernels):
        return engine_backward(dy, normalised, weight, layout, constant, input_grad, xp)
    if isinstance(normalised, NormalisedRows):
        return normalise_rows_backward(dy, normalised, weight, constant, input_grad, parameter_grads, xp)
    order = normalised.order
    back, grid = inverse(order), xp.permute_dims(xp.reshape(dy, layout.grid), order)
    axes = _permuted(layout.axes, order)
    constant_axes = {order.index(axis) for axis, size in enumerate(layout.broadcast) if size == 1}
    shared = tuple(axis for axis in axes if axis in constant_axes)
    sums: tuple[Array, ...] = ()
    if parameter_grads or not constant:
        sums = total(grid, shared, xp), total(grid * normalised.values, shared, xp)
    dbias, dweight = None, None
    if parameter_grads:
        totals = (xp.permute_dims(total(s, tuple(constant_axes - {*shared}), xp), back) for s in sums)
        dbias, dweight = (xp.reshape(each, layout.weight) for each in totals)
    if not input_grad:
        return None, dweight, dbias
    # A weight that is constant over the values of a mean is a factor of the means; one that varies is not.
    varied = tuple(axis for axis in axes if axis not in constant_axes)
    scale = normalised.inverse_std
    if weight is not None:
        factors = layout.along(weight, order, xp)
        if varied:
            grid, sums = grid * factors, tuple([each * factors for each in sums])
        else:
            scale = scale * factors
    if not constant:
        cells = scalar(max(layout.cells, 1), dy, xp)
        mean_g, mean_gx = (total(s, varied, xp) / cells for s in sums)
        grid = grid - mean_g - normalised.values * mean_gx
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
    """`normalise_backward` from the input, after checks of dtypes and shapes."""
    require_same_dtype(dy=dy, input=x, weight=weight)
    require_shape(dy, tuple(x.shape), "dy")
    if weight is not None:
        require_shape(weight, layout.weight, "weight")
    _, normalised = normalise(x, None, None, layout, mean=mean, var=var, eps=eps, xp=xp)
    constant, input_grad = mean is not None, checks.flag("input_grad", input_grad)
    dx, dweight, dbias = normalise_backward(
        dy, normalised, weight, layout, constant=constant, input_grad=input_grad, xp=xp
    )
    return dx, cast(Array, dweight), cast(Array, dbias)


def _permuted(axes: Iterable[int], order: tuple[int, ...]) -> tuple[int, ...]:
    """The positions of these axes after `permute_dims` with this order."""
    return tuple(sorted(order.index(axis) for axis in axes))


def _batch_rows(x: Array, layout: Layout, xp: Namespace) -> Array | None:
    """The input as rows of channels, if each channel has a mean and the backend is fast with rows; else None."""
    return operations_of(xp).channel_rows(x) if is_by_channel(x, layout) else None


class Norm(Layer):
    """Base of the layers that normalise; a subclass passes the layout, and the statistics if it has them."""

    accepts_stored = True
    eps: float

    def _normalise(
        self, x: Array, layout: Layout, mean: Array | None = None, var: Array | None = None, relu: bool = False
    ) -> tuple[Array, AnyNormalised]:
        weight, bias, b = self.parameter_value("weight"), self.parameter_value("bias"), self.backend
        found = None
        if b.numerics == "exact" and prepared(x, layout, mean is not None, b.xp) is not None:
            # An engine also accepts the input as it is stored, in float32.
            is_stored = dtype_name(x.dtype) == "float32"
            _require(layout, None if is_stored else x, weight=weight, bias=bias, mean=mean, var=var)
            found = normalise_by_engine(x, weight, bias, mean, var, layout, self.eps, relu, b.xp)
        options: dict[str, Any] = {"mean": mean, "var": var, "eps": self.eps, "relu": relu, "xp": b.xp}
        y, normalised = found or normalise(b.up(x), weight, bias, layout, **options)
        self.save_for_backward(normalised, layout, mean is not None)
        return y, normalised

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        normalised, layout, constant = self.saved[:3]
        weight, wanted, b = self.parameter_value("weight"), wanted_of(self, input_grad), self.backend
        if not isinstance(normalised, NormalisedByKernels):
            dy = b.up(dy)
        options = {"constant": constant, "input_grad": input_grad, "parameter_grads": wanted.parameters}
        dx, dweight, dbias = normalise_backward(dy, normalised, weight, layout, xp=b.xp, **options)
        self.accumulate_grad("weight", dweight)
        self.accumulate_grad("bias", dbias)
        return dx
