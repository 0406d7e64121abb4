"""Convolutions in exact numerics as products of columns, in compiled code: for shapes that tiles do not compute.

An item cuts the windows of some outputs into columns, splits them, multiplies and combines, all in a core's cache. The
sums are those of `xpnn.backends.exact.operations.ExactOperations`, and so are the bits.
"""

from math import ldexp, prod
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .blas import gemm_address
from .bound import Bound
from .exact_columns_jobs import add_lanes, forward, gradient, input_gradient
from .exact_gradient_jobs import combined_gradient
from .exact_slices import split_adjoint, split_weight
from .exact_spoiled import spoiled
from .exact_tiles import Plan
from .pool import perform

# Bytes of an item's columns, and the fewest rows of them.
COLUMN_BYTES, LEAST_ROWS = 1 << 19, 64
# Bytes of an item's part of a weight's gradient, and of all lanes' gradients together.
GRADIENT_BYTES, LANE_BYTES, MOST_LANES = 1 << 20, 4 << 20, 16
# Rows of a product in the weight's gradient.
BLOCK_ROWS = 256
# Numbers of a weight that an item splits.
ITEM_NUMBERS = 1 << 14


class _Columns:
    """What the three operations have in common."""

    def __init__(self, problem: Any, plan: Plan, blas: int) -> None:
        self.problem, self.plan, self.blas, self.count = problem, plan, blas, plan.right_count
        w, (above, left) = problem.windows, (before for before, _ in problem.padding)
        self.places = *w.kernel, *w.stride, *w.dilation, above, left
        self.rows, self.depth = problem.samples * prod(w.count), w.cells * problem.channels
        self.left, self.right = ldexp(1.0, plan.left_bits), ldexp(1.0, plan.right_bits)


class ExactForward(_Columns):
    """Forward of a convolution."""

    def __init__(self, problem: Any, plan: Plan, blas: int) -> None:
        super().__init__(problem, plan, blas)
        self.per = min(self.rows, max(LEAST_ROWS, COLUMN_BYTES // (8 * self.depth)))
        self.no_bias = np.zeros(0)

    def __call__(self, x: Array, weight: Array, bias: Array | None, s: Array, t: Array, bad: Array) -> Array:
        """As `ExactForward` in `xpnn.backends.engines.numba.exact_winograd`."""
        p = self.problem
        y, slices = empty(p.y_shape, "float64"), empty((self.depth, self.count * p.features), "float64")
        per = max(1, ITEM_NUMBERS // (p.features * p.windows.cells))
        cells = weight.reshape((*weight.shape[:2], p.windows.cells))
        split = split_weight.bind(
            -(-p.channels // per), cells, self.right / t, slices, self.right, self.count, p.rotated, per
        )
        computed = forward.bind(
            -(-self.rows // self.per),
            *(x, self.left / s, s / self.left, slices, t / self.right, self.no_bias if bias is None else bias),
            *(y.reshape((self.rows, p.features)), 1.0 / self.right, self.count, *p.windows.count, *self.places),
            *(self.per, self.plan.product_terms, self.blas),
        )
        perform(Bound.join([split, computed, spoiled(x, bad, y, p.windows, p.padding, 1)]))
        return y


class ExactGradient(_Columns):
    """The weight's gradient of a convolution."""

    def __init__(self, problem: Any, plan: Plan, blas: int) -> None:
        super().__init__(problem, plan, blas)
        wide = 8 * self.count * problem.features
        self.block = min(self.rows, BLOCK_ROWS, plan.product_terms)
        self.chunk = min(self.depth, max(LEAST_ROWS, GRADIENT_BYTES // wide))
        self.chunks = -(-self.depth // self.chunk)
        lanes = min(MOST_LANES, max(1, LANE_BYTES // (wide * self.depth)), -(-self.rows // self.block))
        self.per = -(-self.rows // lanes)
        self.lanes = -(-self.rows // self.per)

    def quanta(self, x: Array, dy: Array, s: Array, t: Array) -> Array:
        """As `ExactGradient.quanta` in `xpnn.backends.engines.numba.exact_winograd_gradient`."""
        p = self.problem
        wide = self.count * p.features
        totals, result = empty((self.lanes, self.depth, wide), "int64"), empty((self.depth, wide), "int64")
        summed = gradient.bind(
            self.lanes * self.chunks,
            *(x, dy.reshape((self.rows, p.features)), self.left / s, self.right / t, totals, self.right, self.count),
            *(*p.windows.count, *self.places, self.chunk, self.chunks, self.per, self.block, self.blas, self.depth),
        )
        per = max(1, ITEM_NUMBERS // (wide * self.lanes))
        added = add_lanes.bind(-(-self.depth // per), totals, result, per, dtype="float64")
        perform(Bound.join([summed, added]))
        return result.reshape((p.windows.cells, p.channels, wide))

    def combine(self, quanta: Array, s: Array, t: Array) -> Array:
        """``dweight (F, C, *K)`` of the quanta of all samples."""
        return combined_gradient(self.problem, quanta, s / self.left, t / self.right, 1.0 / self.right)


class ExactInputGradient(_Columns):
    """The input's gradient of a convolution, by sums over windows; each row of ``dy`` has one scale."""

    def __call__(self, dy: Array, weight: Array, t: Array) -> Array:
        """``dx (N, H, W, C)``, with scales ``t (C, K)``."""
        p = self.problem
        dx, slices = empty(p.x_shape, "float64"), empty((p.features, self.count * self.depth), "float64")
        t = t.T.reshape((-1,))
        cells = weight.reshape((*weight.shape[:2], p.windows.cells))
        split = split_adjoint.bind(p.features, cells, self.right / t, slices, self.right, self.count)
        computed = input_gradient.bind(
            p.samples,
            *(dy, slices, t / self.right, dx, 1.0 / self.right, self.left, self.count, *self.places),
            *(self.plan.product_terms, self.blas),
        )
        perform(Bound.join([split, computed]))
        return dx


def _prepare(make: type[Any], asked: tuple[Any, Plan]) -> Any:
    """For two spatial axes and one group, one left slice and a batch that is not empty."""
    problem, plan = asked
    is_empty = not (problem.samples and problem.channels and problem.features and all(problem.spatial))
    serves = len(problem.spatial) == 2 and problem.groups == 1 and plan.left_count == 1
    blas = gemm_address("float64") if serves and not is_empty and all(problem.windows.count) else 0
    return make(problem, plan, blas) if blas else None


def prepare_forward(asked: tuple[Any, Plan], dtype: str) -> ExactForward | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactForward | None = _prepare(ExactForward, asked)
    return made


def prepare_gradient(asked: tuple[Any, Plan], dtype: str) -> ExactGradient | None:
    """For a problem and a plan, if NumPy's matrix library was found."""
    made: ExactGradient | None = _prepare(ExactGradient, asked)
    return made


def prepare_input_gradient(asked: tuple[Any, Plan], dtype: str) -> ExactInputGradient | None:
    """For a problem that is not rotated and a plan, if NumPy's matrix library was found."""
    made: ExactInputGradient | None = None if asked[0].rotated else _prepare(ExactInputGradient, asked)
    return made
