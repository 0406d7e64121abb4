"""The fully connected layer: products by the matrix library, cut by shape into parts that threads share.

Forward adds the bias and applies ReLU in the same pass, part by part. Backward computes all gradients in one program,
whose parts of the input's and of the weight's gradient are shared together. A single row is multiplied without the
matrix library, which copies the weight first.
"""

from math import ceil
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .blas import gemm, gemm_address
from .bound import Bound
from .compiler import contiguous
from .dot import dot
from .jobs import INT, NUMBER, bind_phases, job, read, write
from .pool import perform
from .row_sums import LANE_ENTRIES, RowSums

# Multiply-adds of a part, some 10 microseconds, and the most parts of a product.
PART_PRODUCTS, MOST_PARTS = 1 << 19, 16
# Weights of a part of a product with a single row, which is as fast as they are read: some 5 microseconds.
PART_WEIGHTS = 1 << 17
# Multiply-adds from which OpenBLAS may use threads.
MOST_PRODUCTS_OF_A_THREAD, MOST_PRODUCTS_OF_A_VECTOR = 262144, 9216
# Parts of a matrix end at multiples of the rows and columns that a matrix library computes at a time.
TILE = 16
# Entries of a weight up to which its gradient is added up in lanes of rows if there are many.
SMALL_WEIGHT = 1 << 14
INPUT, WEIGHT, BIAS, LANE = 0, 1, 2, 3


@job(
    *(read(2, "int64"), read(2), read(2), read(1), write(2)),
    *(INT, INT, INT, NUMBER),
    uses_blas=True,
)
def forward(
    item: Any, parts: Any, x: Any, weight: Any, bias: Any, y: Any, has_bias: Any, relu: Any, library: Any, zero: Any
) -> None:
    """Rows ``r0 .. r1`` and columns ``c0 .. c1`` of ``x weight^T + bias``."""
    r0, r1, c0, c1 = parts[item, 0], parts[item, 1], parts[item, 2], parts[item, 3]
    inner, outer, size = x.shape[1], weight.shape[0], x.itemsize
    left, right = x.ctypes.data + r0 * inner * size, weight.ctypes.data + c0 * inner * size
    to = y.ctypes.data + (r0 * outer + c0) * size
    gemm(library, 0, 1, r1 - r0, c1 - c0, inner, left, inner, right, inner, 0, to, outer, zero)
    if has_bias:
        add = bias[c0:c1]
        for r in range(r0, r1):
            row = y[r, c0:c1]
            for c in range(row.shape[0]):
                row[c] += add[c]
    if relu:
        for r in range(r0, r1):
            row = y[r, c0:c1]
            for c in range(row.shape[0]):
                row[c] = zero if row[c] <= zero else row[c]


@job(read(1), read(2), read(1), write(1), INT, INT, INT, NUMBER)
def multiply_vector(
    item: Any, x: Any, weight: Any, bias: Any, y: Any, has_bias: Any, relu: Any, length: Any, zero: Any
) -> None:
    """Some entries of ``weight x + bias``."""
    inner, size = x.shape[0], x.itemsize
    for o in range(item * length, min((item + 1) * length, weight.shape[0])):
        value = dot(weight.ctypes.data + o * inner * size, x.ctypes.data, inner, zero)
        if has_bias:
            value += bias[o]
        y[o] = zero if relu and value <= zero else value


_BACKWARD = (
    *(read(2, "int64"), read(2), read(2), read(2)),
    *(write(2), write(2), write(1), write(3), INT, NUMBER),
)


@job(*_BACKWARD, uses_blas=True)
def backward(
    item: Any,
    parts: Any,
    dy: Any,
    x: Any,
    weight: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    lanes: Any,
    library: Any,
    zero: Any,
) -> None:
    """A part of one of the gradients."""
    what, r0, r1, c0, c1 = parts[item, 0], parts[item, 1], parts[item, 2], parts[item, 3], parts[item, 4]
    rows, inner, outer, size = dy.shape[0], x.shape[1], dy.shape[1], dy.itemsize
    if what == INPUT:
        left, right = dy.ctypes.data + r0 * outer * size, weight.ctypes.data + c0 * size
        to = dx.ctypes.data + (r0 * inner + c0) * size
        gemm(library, 0, 0, r1 - r0, c1 - c0, outer, left, outer, right, inner, 0, to, inner, zero)
    elif what == WEIGHT:
        left, right = dy.ctypes.data + r0 * size, x.ctypes.data + c0 * size
        to = dweight.ctypes.data + (r0 * inner + c0) * size
        gemm(library, 1, 0, r1 - r0, c1 - c0, rows, left, outer, right, inner, 0, to, inner, zero)
    elif what == LANE:
        left, right = dy.ctypes.data + r0 * outer * size, x.ctypes.data + r0 * inner * size
        to = lanes.ctypes.data + c0 * outer * inner * size
        gemm(library, 1, 0, outer, inner, r1 - r0, left, outer, right, inner, 0, to, inner, zero)
    else:
        dbias[:] = 0
        for r in range(rows):
            row = dy[r]
            for c in range(outer):
                dbias[c] += row[c]


@job(*_BACKWARD)
def add_lanes(
    item: Any,
    parts: Any,
    dy: Any,
    x: Any,
    weight: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    lanes: Any,
    library: Any,
    zero: Any,
) -> None:
    """The weight's gradient as the sum of its lanes."""
    total = dweight.reshape(-1)
    for lane in range(lanes.shape[0]):
        part = lanes[lane].reshape(-1)
        for i in range(total.shape[0]):
            total[i] = part[i] if lane == 0 else total[i] + part[i]


class Dense:
    """``x (R, I)`` times ``weight (O, I)`` transposed, and its gradients."""

    def __init__(self, rows: int, inner: int, outer: int, dtype: str) -> None:
        self.rows, self.inner, self.outer, self.dtype = rows, inner, outer, np.dtype(dtype)
        self.name = dtype
        self.library = gemm_address(dtype)
        # A product that is so small that OpenBLAS uses one thread in any case; setting its threads takes longer.
        least = MOST_PRODUCTS_OF_A_VECTOR if 1 in (rows, inner, outer) else MOST_PRODUCTS_OF_A_THREAD
        self._uses_threads = rows * inner * outer >= least
        self._nothing = np.empty(0, self.dtype)
        self._no_matrix, self._no_lanes = np.empty((0, 0), self.dtype), np.empty((0, 0, 0), self.dtype)
        shares = _shares(rows * inner * outer)
        self._forward = np.array(_grid(rows, outer, shares), np.int64)
        self._row_length = ceil(outer / _shares(inner * outer, PART_WEIGHTS))
        self._lanes = shares if inner * outer <= SMALL_WEIGHT and rows >= 4 * max(inner, outer) else 1
        if self._lanes > 1:
            bounds = [rows * i // self._lanes for i in range(self._lanes + 1)]
            of_weight = [(LANE, bounds[i], bounds[i + 1], i, 0) for i in range(self._lanes)]
        else:
            of_weight = [(WEIGHT, *part) for part in _grid(outer, inner, shares)]
        # A large gradient of the bias has a program of its own.
        self._row_sums = RowSums(dtype) if rows * outer > LANE_ENTRIES else None
        of_bias = [] if self._row_sums else [(BIAS, 0, 0, 0, 0)]
        of_input = [(INPUT, *part) for part in _grid(rows, inner, shares)]
        self._of_gradients = of_input, of_weight, of_bias
        # The parts of each choice of gradients.
        self._backward: dict[tuple[bool, bool, bool], Array] = {}

    def forward(self, x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
        """``x weight^T + bias``, ``(R, O)``; with ``relu``, 0 where it is negative."""
        y = empty((self.rows, self.outer), self.dtype)
        x, weight = contiguous(x), contiguous(weight)
        has_bias, added = bias is not None, self._nothing if bias is None else contiguous(bias)
        numbers = (has_bias, relu)
        if self.rows == 1:
            items = -(-self.outer // self._row_length)
            vectors = (x.reshape(-1), weight, added, y.reshape(-1))
            perform(multiply_vector.bind(items, *vectors, *numbers, self._row_length, 0.0, dtype=self.name))
            return y
        bound = forward.bind(
            len(self._forward), self._forward, x, weight, added, y, *numbers, self.library, 0.0, dtype=self.name
        )
        bound.uses_blas = self._uses_threads
        perform(bound)
        return y

    def backward(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        input_grad: bool = True,
        weight_grad: bool = True,
        bias_grad: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """The gradients with respect to ``x``, weight and bias; None for those that are not wanted."""
        dtype, wanted = self.dtype, (input_grad, weight_grad, bias_grad)
        dx = empty((self.rows, self.inner), dtype) if input_grad else self._no_matrix
        dweight = empty((self.outer, self.inner), dtype) if weight_grad else self._no_matrix
        dbias = empty((self.outer,), dtype) if bias_grad else self._nothing
        in_lanes = self._lanes > 1 and weight_grad
        lanes = empty((self._lanes, self.outer, self.inner), dtype) if in_lanes else self._no_lanes
        parts, dy = self._backward.get(wanted), contiguous(dy)
        if parts is None:
            parts = self._backward[wanted] = self._parts(wanted)
        sums = self._row_sums.bound(dy, dbias) if bias_grad and self._row_sums is not None else None
        if count := len(parts):
            phases = [(backward, count), (add_lanes, 1)] if in_lanes else [(backward, count)]
            arrays = (parts, dy, contiguous(x), contiguous(weight), dx, dweight, dbias, lanes)
            bound = bind_phases(phases, *arrays, self.library, 0.0, dtype=self.name)
            bound.uses_blas = self._uses_threads
            perform(bound if sums is None else Bound.join([bound, sums]))
        elif sums is not None:
            perform(sums)
        return dx if input_grad else None, dweight if weight_grad else None, dbias if bias_grad else None

    def _parts(self, wanted: tuple[bool, bool, bool]) -> Array:
        """The parts of these gradients."""
        chosen = [parts for parts, is_wanted in zip(self._of_gradients, wanted, strict=True) if is_wanted]
        return np.array([part for parts in chosen for part in parts], np.int64).reshape(-1, 5)


def _shares(products: int, part: int = PART_PRODUCTS) -> int:
    """In how many parts a product of that many multiply-adds is cut: a power of two."""
    return 1 << min(products // part, MOST_PARTS).bit_length() >> 1 or 1


def _grid(rows: int, columns: int, shares: int) -> list[tuple[int, int, int, int]]:
    """First and last row and column of each part of a matrix, which is cut along its longer side."""
    bounds = _bounds(max(rows, columns), shares)
    if rows > columns:
        return [(start, stop, 0, columns) for start, stop in bounds]
    return [(0, rows, start, stop) for start, stop in bounds]


def _bounds(size: int, shares: int) -> list[tuple[int, int]]:
    """An axis cut into at most that many parts, at multiples of `TILE`."""
    tiles = ceil(size / TILE)
    cuts = [tiles * i // min(shares, tiles) * TILE for i in range(min(shares, tiles))]
    return [(start, min(stop, size)) for start, stop in zip(cuts, [*cuts[1:], size], strict=True)]


def prepare(problem: tuple[int, int, int], dtype: str) -> Dense | None:
    """For a problem ``(rows, features of the input, features of the output)``, none of which is 0."""
    return Dense(*problem, dtype) if all(problem) and gemm_address(dtype) else None
