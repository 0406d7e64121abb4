"""The gradient of the input where channels are few: whole rows of it at once.

A row of ``dy`` is ``O F`` numbers and reaches ``k`` rows of the input, ``W C`` numbers each; the weight becomes a band
matrix between them. Then a window is ``k`` rows high and one cell wide, and what is added up where windows overlap are
whole rows: ``k`` additions of long runs in place of ``k^2`` of ``C`` numbers::

    dx[n, o*s + i*d - before, (w, c)] = sum over (q, f) of  dy[n, o, (q, f)] * band[i, (w, c), (q, f)]
    band[i, (q*s + j*d - before, c), (q, f)] = weight[f, c, i, j]          and 0 elsewhere

That takes ``W / k`` times the products, zeros among them. As in `banded`, a zero of the band meets what others see: an
infinity or NaN in ``dy`` makes the rows that it reaches NaN.
"""

from math import prod

from array_api_compat import device

from ...backends.contractions.windows import Windows
from ...backends.operations import Operations
from ...common.types import Array, Namespace
from . import columns
from .problem import Problem

# Most entries of the band.
LARGEST = 1 << 18
# Multiply-adds from which it pays to make the band.
LEAST = 1_000_000


def serves(problem: Problem) -> bool:
    """Whether this algorithm computes the problem: two axes or more, one group, a weight that is not to be rotated."""
    return (
        len(problem.windows.count) > 1 and problem.groups == 1 and not problem.rotated and problem.precision != "direct"
    )


def suits(problem: Problem) -> bool:
    """Whether channels are few, and rows short."""
    w = problem.windows
    entries = prod(w.kernel[:-1]) * problem.spatial[-1] * problem.channels * w.count[-1] * problem.features
    return serves(problem) and problem.channels <= 8 and entries <= LARGEST and problem.multiply_adds >= LEAST


def input_gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
    """``dx (N, *S, C)``."""
    xp, w = ops.xp, problem.windows
    windows = Windows(w.kernel[:-1], w.stride[:-1], w.dilation[:-1], w.count[:-1])
    upstream = xp.reshape(dy, (problem.samples, *w.count[:-1], w.count[-1] * problem.features))
    shape = (problem.samples, *problem.spatial[:-1], problem.spatial[-1] * problem.channels)
    dx = ops.contract_input_gradient(upstream, _band(weight, problem, xp), windows, shape, problem.padding[:-1])
    return xp.reshape(dx, problem.x_shape)


def _band(weight: Array, problem: Problem, xp: Namespace) -> Array:
    """``(1, k*W*C, O*F)``, a view of its transpose, which is the factor."""
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
