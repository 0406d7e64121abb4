"""Convolution with few channels: ``t`` neighbouring outputs of a row by one product with a band matrix.

A row of the input is read as ``W * C`` numbers. The windows of ``t`` neighbouring outputs together read one run of
``L = ((t - 1) s + k) C`` of them. The weight becomes a band matrix: ``t`` copies of each of its rows side by side, each
shifted by one stride::

    y[n, o, (q, b), f] = sum over i, l of  x[n, o*s + i*d, q*t*s*C + l] * band[i, l, (b, f)]
    band[i, (b*s + j)*C + c, (b, f)] = weight[f, c, i, j]          and 0 elsewhere

That needs ``L / (k C)`` times the products, because the zeros are multiplied too, but it copies ``t`` times fewer and
longer runs, which with few channels takes most of the time, and the matrices are wider. It is a convolution of one
channel, so `Operations.contract` computes it. The zeros are multiplied by numbers that only other outputs of the ``t``
see: if one of these is infinite or NaN, all ``t`` outputs become NaN.
"""

from dataclasses import replace
from functools import lru_cache
from math import prod, sqrt

from array_api_compat import device

from ...backends.contractions.windows import Windows
from ...backends.operations import Operations
from ...common.types import Array, Namespace
from ..core.kept import Keep, compute
from . import columns
from .problem import Problem

# Measured nanoseconds: to copy a run and each number in it, and for a multiply-add in a wide matrix.
RUN_NS, NUMBER_NS, MULTIPLY_ADD_NS = 5.0, 0.1, 0.019
# Multiply-adds below which making the band matrix takes longer than it saves.
MIN_BANDED_MULTIPLY_ADDS = 500_000
# Columns of a matrix from which a product runs at full speed.
FULL_SPEED_COLUMNS = 48


@lru_cache(maxsize=1024)
def neighbours(problem: Problem) -> int:
    """``t``, the number of neighbouring outputs to compute together, a divisor of the output's width; 1 for none."""
    if problem.multiply_adds < MIN_BANDED_MULTIPLY_ADDS:
        return 1
    return min((1, *possible_neighbours(problem)), key=lambda t: _cost(problem, t))


def possible_neighbours(problem: Problem) -> list[int]:
    """All ``t`` that can be used: divisors of the output's width, from 2 to 32."""
    w = problem.windows
    if problem.groups > 1 or w.dilation[-1] > 1 or w.stride[-1] > w.kernel[-1] or problem.algorithms == "direct":
        return []
    return [t for t in range(2, min(w.count[-1], 32) + 1) if w.count[-1] % t == 0]


def _cost(problem: Problem, t: int) -> float:
    """Nanoseconds for each output."""
    w = problem.windows
    run = _run(problem, t)
    rows = prod(w.kernel[:-1])
    slowdown = sqrt(max(1.0, FULL_SPEED_COLUMNS / (t * problem.features)))
    products = rows * run * problem.features * MULTIPLY_ADD_NS * slowdown
    return rows * (RUN_NS + NUMBER_NS * run) / t + products


def _run(problem: Problem, t: int) -> int:
    """``L``."""
    return ((t - 1) * problem.windows.stride[-1] + problem.windows.kernel[-1]) * problem.channels


class Banded:
    """Convolution of ``t`` neighbouring outputs together."""

    def __init__(self, t: int) -> None:
        self.t = t

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        problem: Problem,
        ops: Operations,
        keep: Keep = compute,
        relu: bool = False,
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU."""
        xp = ops.xp
        wide = self._wide(problem)
        band = keep(
            ("banded", self.t, problem.windows.stride[-1], problem.rotated),
            lambda: self._band(columns.kernel_matrix(weight, problem, xp), problem, xp),
        )
        bias = None if bias is None else xp.tile(bias, (self.t,))
        y = xp.reshape(ops.contract(self._rows(x, xp), band, wide.windows, wide.padding, bias), problem.y_shape)
        return ops.relu_in_place(y) if relu else y

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C, *K)``: for each entry the sum over its copies in the band matrix."""
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
        """The convolution of one channel, with ``t`` outputs in each."""
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
        """The band matrix ``(1, rows * L, t*F)`` of a matrix ``(1, K*C, F)``."""
        rows, features = prod(problem.windows.kernel[:-1]), problem.features
        matrix = xp.reshape(matrix, (rows, matrix.shape[1] // rows, features))
        shape = (rows, _run(problem, self.t), self.t, features)
        band = xp.zeros(shape, dtype=matrix.dtype, device=device(matrix))
        for b, place in enumerate(self._places(problem)):
            band[:, place, b, :] = matrix
        return xp.reshape(band, (1, shape[0] * shape[1], self.t * features))

    def _places(self, problem: Problem) -> list[slice]:
        """The part of the run that each of the ``t`` outputs reads."""
        step, size = problem.windows.stride[-1] * problem.channels, problem.windows.kernel[-1] * problem.channels
        return [slice(b * step, b * step + size) for b in range(self.t)]
