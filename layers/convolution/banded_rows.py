"""The gradient of the input where channels are few: whole rows at once, by a band matrix.

A row of ``dy``, of ``O F`` numbers, contributes to ``k`` rows of the input, of ``W C`` numbers each, and the weight
becomes a band matrix between them. Windows are then ``k`` rows high and one cell wide, so that whole rows are added up
where they overlap: ``k`` additions of long runs instead of ``k^2`` additions of ``C`` numbers::

    dx[n, o*s + i*d - before, (w, c)] = sum over (q, f) of  dy[n, o, (q, f)] * band[i, (w, c), (q, f)]
    band[i, (q*s + j*d - before, c), (q, f)] = weight[f, c, i, j]          and 0 elsewhere

That needs ``W / k`` times the products, because the zeros are multiplied too. As in `banded`, an infinity or NaN in
``dy`` meets these zeros and makes the rows to which it contributes NaN.
"""

from math import prod

from array_api_compat import device

from ...backends.contractions.windows import Windows
from ...backends.operations import Operations
from ...common.types import Array, Namespace
from ..core.kept import Keep, compute
from . import columns
from .problem import Problem

# Largest size of the band matrix.
MAX_BAND_SIZE = 1 << 18
# Multiply-adds from which making the band matrix pays off.
MIN_BANDED_ROWS_MULTIPLY_ADDS = 1_000_000


def serves(problem: Problem) -> bool:
    """Whether this algorithm computes the problem: two axes or more, one group, a weight that is not rotated."""
    return (
        len(problem.windows.count) > 1
        and problem.groups == 1
        and not problem.rotated
        and problem.algorithms != "direct"
    )


def suits(problem: Problem) -> bool:
    """Whether channels are few, and rows short."""
    w = problem.windows
    size = prod(w.kernel[:-1]) * problem.spatial[-1] * problem.channels * w.count[-1] * problem.features
    is_small = problem.channels <= 8 and size <= MAX_BAND_SIZE
    return serves(problem) and is_small and problem.multiply_adds >= MIN_BANDED_ROWS_MULTIPLY_ADDS


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations, keep: Keep = compute) -> Array:
    """``dx (N, *S, C)``."""
    xp, w = ops.xp, problem.windows
    windows = Windows(w.kernel[:-1], w.stride[:-1], w.dilation[:-1], w.count[:-1])
    upstream = xp.reshape(dy, (problem.samples, *w.count[:-1], w.count[-1] * problem.features))
    shape = (problem.samples, *problem.spatial[:-1], problem.spatial[-1] * problem.channels)
    key = ("banded rows", w, problem.padding[-1], problem.spatial[-1])
    band = keep(key, lambda: _band(weight, problem, xp))
    dx = ops.contract_input_gradient(upstream, band, windows, shape, problem.padding[:-1])
    return xp.reshape(dx, problem.x_shape)


def _band(weight: Array, problem: Problem, xp: Namespace) -> Array:
    """The band matrix ``(1, k*W*C, O*F)``, as a view of its contiguous transpose, which is multiplied."""
    w, c, f = problem.windows, problem.channels, problem.features
    rows, size, stride, dilation = prod(w.kernel[:-1]), w.kernel[-1], w.stride[-1], w.dilation[-1]
    width, count, before = problem.spatial[-1], w.count[-1], problem.padding[-1][0]
    matrix = xp.reshape(columns.kernel_matrix(weight, problem, xp), (rows, size, c, f))
    matrix = xp.permute_dims(matrix, (3, 0, 1, 2))
    band = xp.zeros((count, f, rows, width, c), dtype=weight.dtype, device=device(weight))
    for q in range(count):
        start = q * stride - before
        first = max(0, -(start // dilation))
        last = min(size, (width - 1 - start) // dilation + 1)
        if first < last:
            place = slice(start + first * dilation, start + (last - 1) * dilation + 1, dilation)
            band[q, :, :, place, :] = matrix[:, :, first:last, :]
    return xp.matrix_transpose(xp.reshape(band, (1, count * f, rows * width * c)))
