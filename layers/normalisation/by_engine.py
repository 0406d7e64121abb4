"""Normalisation by an engine: compiled kernels on the CPU, or CUDA kernels."""

from math import prod
from typing import Any, NamedTuple

from ...backends import operations_of
from ...backends.execution.team import current_team
from ...backends.kept_calls import kept_calls
from ...common.types import Array, Namespace, dtype_name
from ..core.axis_order import channels_first, channels_last
from .layout import Layout


class NormalisedByKernels(NamedTuple):
    """The engine's object that normalised an input, and the state that it saved."""

    kernels: Any
    state: Any

    @property
    def mean(self) -> Array:
        """The mean of each channel, ``(C,)``, or of each channel of each sample, ``(N, C)``."""
        return self.state.mean

    @property
    def var(self) -> Array:
        """The biased variances, of the shape of the means."""
        return self.state.var


@kept_calls(5)
def normalise_by_engine(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array | None,
    var: Array | None,
    layout: Layout,
    eps: float,
    relu: bool,
    xp: Namespace,
) -> tuple[Array, NormalisedByKernels] | None:
    """`normalise` by the backend's own kernels; None if there are none."""
    given = None if mean is None or var is None else (mean, var)
    kernels = prepared(x, layout, given is not None, xp)
    if kernels is None:
        return None
    if layout.is_row:
        y, state = kernels.forward(x, weight, bias, given, eps)
        return y, NormalisedByKernels(kernels, state)
    rectifying = {"relu": True} if relu and getattr(kernels, "rectifies", False) else {}
    y, state = kernels.forward(channels_last(x, xp), weight, bias, given, eps, **rectifying)
    return channels_first(y, xp), NormalisedByKernels(kernels, state)


def engine_backward(
    dy: Array,
    normalised: NormalisedByKernels,
    weight: Array | None,
    layout: Layout,
    constant: bool,
    input_grad: bool,
    xp: Namespace,
) -> tuple[Array | None, Array, Array]:
    """``(dx, dweight, dbias)``, as `xpnn.layers.normalisation.norm.normalise_backward`."""
    rows, state = dy if layout.is_row else channels_last(dy, xp), normalised.state
    dx, dweight, dbias = normalised.kernels.backward(rows, state, weight, constant, input_grad)
    if layout.is_row:
        return dx, xp.reshape(dweight, layout.weight), xp.reshape(dbias, layout.weight)
    return None if dx is None else channels_first(dx, xp), dweight, dbias


def is_rectified(normalised: Any) -> bool:
    """Whether ReLU was computed together with a normalisation, and `normalise_backward` includes its gradient."""
    return isinstance(normalised, NormalisedByKernels) and getattr(normalised.state, "relu", False)


def prepared(x: Array, layout: Layout, is_given: bool, xp: Namespace) -> Any:
    """An engine's normalisation of channels, of groups of channels or of rows; None if there is none."""
    ops, dtype = operations_of(xp), dtype_name(x.dtype)
    if is_by_channel(x, layout):
        return ops.prepare("batch norm", (layout.cells, x.shape[1]), dtype)
    if layout.is_row:
        count = prod(layout.weight)
        return ops.prepare("layer norm", (prod(x.shape) // max(count, 1), count), dtype)
    if layout.groups is None or is_given:
        return None
    return ops.prepare("group norm", (x.shape[0], prod(x.shape[2:]), x.shape[1], layout.groups), dtype)


def is_by_channel(x: Array, layout: Layout) -> bool:
    """Whether each channel has a mean, which is not shared with other workers."""
    channels = (1, *layout.weight, *(1,) * (x.ndim - 2))
    is_plain = current_team() is None and tuple(x.shape) == layout.grid and layout.broadcast == channels
    return is_plain and layout.axes == (0, *range(2, x.ndim))
