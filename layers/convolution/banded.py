"""Convolution with few channels: several outputs of a row in one row of a matrix product.

A row of the input is read as ``W * C`` numbers, and a window as ``t`` neighbouring ones together: ``L = ((t - 1) s + k)
C`` numbers in one run. The weight becomes a band matrix, ``t`` copies of each of its rows one under the other, shifted
by a stride::

    y[n, o, (q, b), f] = sum over i, l of  x[n, o*s + i*d, q*t*s*C + l] * band[i, l, (b, f)]
    band[i, (b*s + j)*C + c, (b, f)] = weight[f, c, i, j]          and 0 elsewhere

That takes ``L / (k C)`` times the products, zeros among them, but cuts ``t`` times fewer and longer runs and makes the
matrices wider; with few channels cutting is what costs. It is a convolution of one channel, so `Operations.contract`
does it. A zero of the band meets numbers that other outputs of the group see: where one of them is infinite or NaN,
the group becomes NaN.
"""

from dataclasses import replace
from functools import lru_cache
from math import prod, sqrt

from array_api_compat import device

from ...backends.contractions.windows import Windows
from ...backends.operations import Operations
from ...common.types import Array, Namespace
from . import columns
from .problem import Problem

# Nanoseconds, measured: of a run of numbers and of a number in it, and of a multiply-add in a wide matrix.
RUN, NUMBER, MULTIPLY = 5.0, 0.1, 0.019
# Multiply-adds below which the band would cost more to make than it saves.
LEAST = 500_000
# Columns of a matrix from which a product is as fast as it gets.
WIDE = 48


@lru_cache(maxsize=1024)
def neighbours(problem: Problem) -> int:
    """How many neighbouring outputs to compute together: ``t``, a divisor of the output's width; 1 for none."""
    if problem.multiply_adds < LEAST:
        return 1
    return min((1, *serving(problem)), key=lambda t: _cost(problem, t))


def serving(problem: Problem) -> list[int]:
    """All numbers of outputs that can be computed together: divisors of the width, from 2 to 32."""
    w = problem.windows
    if problem.groups > 1 or w.dilation[-1] > 1 or w.stride[-1] > w.kernel[-1] or problem.precision == "direct":
        return []
    return [t for t in range(2, min(w.count[-1], 32) + 1) if w.count[-1] % t == 0]


def _cost(problem: Problem, t: int) -> float:
    """Nanoseconds an output."""
    w = problem.windows
    run = _run(problem, t)
    rows = prod(w.kernel[:-1])
    products = rows * run * problem.features * MULTIPLY * sqrt(max(1.0, WIDE / (t * problem.features)))
    return rows * (RUN + NUMBER * run) / t + products


def _run(problem: Problem, t: int) -> int:
    return ((t - 1) * problem.windows.stride[-1] + problem.windows.kernel[-1]) * problem.channels


class Banded:
    """Convolution of ``t`` neighbouring outputs together."""

    def __init__(self, t: int) -> None:
        self.t = t

    def forward(self, x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
        """``y (N, *O, F)``."""
        xp = ops.xp
        wide = self._wide(problem)
        band = self._band(columns.kernel_matrix(weight, problem, xp), problem, xp)
        bias = None if bias is None else xp.tile(bias, (self.t,))
        y = ops.contract(self._rows(x, xp), band, wide.windows, wide.padding, bias)
        return xp.reshape(y, problem.y_shape)

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C, *K)``: of each entry the sum over its places in the band."""
        xp = ops.xp
        wide = self._wide(problem)
        upstream = xp.reshape(dy, wide.y_shape)
        band = ops.contract_weight_gradient(self._rows(x, xp), upstream, wide.windows, 1, wide.padding)
        rows, run = prod(problem.windows.kernel[:-1]), _run(problem, self.t)
        band = xp.reshape(band, (rows, run, self.t, problem.features))
        total = None
        for b, place in enumerate(self._places(problem)):
            part = band[:, place, b, :]
            total = part if total is None else total + part
        matrix = xp.reshape(total, (1, rows * (place.stop - place.start), problem.features))
        return columns.kernel_of_matrix(matrix, problem, xp)

    def _wide(self, problem: Problem) -> Problem:
        """The convolution of one channel, with ``t`` outputs in one."""
        w, c, t = problem.windows, problem.channels, self.t
        windows = Windows(
            (*w.kernel[:-1], _run(problem, t)),
            (*w.stride[:-1], t * w.stride[-1] * c),
            w.dilation,
            (*w.count[:-1], w.count[-1] // t),
        )
        before, after = problem.padding[-1]
        return replace(
            problem,
            spatial=(*problem.spatial[:-1], problem.spatial[-1] * c),
            channels=1,
            features=t * problem.features,
            windows=windows,
            padding=(*problem.padding[:-1], (before * c, after * c)),
        )

    def _rows(self, x: Array, xp: Namespace) -> Array:
        """``x (N, *S, W, C)`` as ``(N, *S, W*C, 1)``."""
        return xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1], 1))

    def _band(self, matrix: Array, problem: Problem, xp: Namespace) -> Array:
        """The matrix ``(1, K*C, F)`` as a band ``(1, rows * L, t*F)``."""
        rows, features = prod(problem.windows.kernel[:-1]), problem.features
        matrix = xp.reshape(matrix, (rows, matrix.shape[1] // rows, features))
        shape = (rows, _run(problem, self.t), self.t, features)
        band = xp.zeros(shape, dtype=matrix.dtype, device=device(matrix))
        for b, place in enumerate(self._places(problem)):
            band[:, place, b, :] = matrix
        return xp.reshape(band, (1, shape[0] * shape[1], self.t * features))

    def _places(self, problem: Problem) -> list[slice]:
        """Where the kernel's row stands in the run, for each of the outputs."""
        step, size = problem.windows.stride[-1] * problem.channels, problem.windows.kernel[-1] * problem.channels
        return [slice(b * step, b * step + size) for b in range(self.t)]
