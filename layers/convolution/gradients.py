"""The gradients of convolution and transposed convolution, of which only those that are wanted are computed."""

from math import prod

from ...backends import operations_of
from ...backends.kept_calls import kept_calls
from ...common.types import Array, Namespace
from .. import convolution
from ..core.array_checks import require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.needed_gradients import Wanted
from .problem import Problem


@kept_calls(3)
def gradients(
    dy: Array, x: Array, weight: Array, problem: Problem, wanted: Wanted, xp: Namespace
) -> tuple[Array | None, Array | None, Array | None]:
    """`xpnn.layers.convolution.conv.conv_backward`, with None for what is not wanted."""
    require_shape(dy, (x.shape[0], problem.features, *problem.windows.count), "dy")
    inner, rows, ops = channels_last(x, xp), channels_last(dy, xp), operations_of(xp)
    dx, dweight, dbias = None, None, None
    if wanted.bias:
        dbias = ops.sum_rows(xp.reshape(rows, (prod(rows.shape[:-1]), rows.shape[-1])))
    if wanted.weight:
        dweight = convolution.weight_gradient(inner, rows, problem, ops)
    if wanted.input:
        dx = channels_first(convolution.input_gradient(rows, weight, problem, ops), xp)
    return dx, dweight, dbias


def transposed_gradients(
    dy: Array, x: Array, weight: Array, problem: Problem, wanted: Wanted, xp: Namespace
) -> tuple[Array | None, Array | None, Array | None]:
    """`xpnn.layers.convolution.conv_transpose.conv_transpose_backward`, with None for what is not wanted."""
    require_shape(dy, (x.shape[0], problem.channels, *problem.spatial), "dy")
    upstream, ops = channels_last(dy, xp), operations_of(xp)
    dx, dweight, dbias = None, None, None
    if wanted.bias:
        dbias = ops.sum_rows(xp.reshape(upstream, (prod(upstream.shape[:-1]), problem.channels)))
    if wanted.weight:
        dweight = convolution.weight_gradient(upstream, channels_last(x, xp), problem, ops)
    if wanted.input:
        dx = channels_first(convolution.forward(upstream, weight, None, problem, ops), xp)
    return dx, dweight, dbias
