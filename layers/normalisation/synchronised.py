"""Batch norm over the samples of several processes, in fast numerics.

The formulas are those of `xpnn.layers.normalisation.norm`; its sums over the batch are added over the processes: two
exchanges forward, one backward. Gradients of weight and bias are those of this process's samples, which are added with
all other gradients. In exact numerics sums over the batch are those of all processes anyway.
"""

from math import prod
from typing import NamedTuple, Protocol

from ...common.types import Array, Namespace
from ..core.elementwise import scalar
from .layout import Layout


class AddingGroup(Protocol):
    """What a norm uses of a group of processes."""

    def all_reduce(self, array: Array) -> Array:
        """The sum of the arrays of all processes."""


class Synchronised(NamedTuple):
    """A normalised input, and its statistics over all processes, ``(C,)``."""

    values: Array
    inverse_std: Array
    mean: Array
    var: Array
    #: The number of values of a channel in all processes, 0-d.
    cells: Array


def normalise_together(
    x: Array, weight: Array | None, bias: Array | None, layout: Layout, eps: float, group: AddingGroup, xp: Namespace
) -> tuple[Array, Synchronised]:
    """``y``, and the state for `normalise_together_backward`."""
    axes, channels = layout.axes, layout.weight
    own = xp.reshape(scalar(float(prod(layout.grid[axis] for axis in axes)), x, xp), (1,))
    sums = group.all_reduce(xp.concat([xp.sum(x, axis=axes), own]))
    cells = sums[-1]
    near = sums[:-1] / cells
    centred = x - xp.reshape(near, layout.broadcast)
    # The second sum corrects the rounding of the first.
    both = group.all_reduce(xp.concat([xp.sum(centred, axis=axes), xp.sum(centred * centred, axis=axes)]))
    correction, squares = both[: channels[0]] / cells, both[channels[0] :] / cells
    mean, var = near + correction, squares - correction * correction
    inverse_std = 1.0 / xp.sqrt(var + eps)
    values = (centred - xp.reshape(correction, layout.broadcast)) * xp.reshape(inverse_std, layout.broadcast)
    y = values if weight is None else values * xp.reshape(weight, layout.broadcast)
    if bias is not None:
        y = y + xp.reshape(bias, layout.broadcast)
    return y, Synchronised(values, inverse_std, mean, var, cells)


def normalise_together_backward(
    dy: Array, normalised: Synchronised, weight: Array | None, layout: Layout, group: AddingGroup, xp: Namespace
) -> tuple[Array, Array, Array]:
    """``(dx, dweight, dbias)``: the latter are sums over the samples of this process."""
    dbias = xp.sum(dy, axis=layout.axes)
    dweight = xp.sum(dy * normalised.values, axis=layout.axes)
    sums = group.all_reduce(xp.concat([dbias, dweight])) / normalised.cells
    channels = layout.weight[0]
    mean_g, mean_gx = (xp.reshape(each, layout.broadcast) for each in (sums[:channels], sums[channels:]))
    scale = normalised.inverse_std if weight is None else normalised.inverse_std * weight
    dx = (dy - mean_g - normalised.values * mean_gx) * xp.reshape(scale, layout.broadcast)
    return dx, dweight, dbias
