"""How cuBLAS multiplies arrays of certain shapes and strides; computed from numbers, without arrays.

cuBLAS multiplies matrices that are stored by rows or by columns, with any distance between these, and batches of evenly
spaced matrices. A plan has the arguments of the call, and says which factors must be copied first.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

# Largest size and distance in cuBLAS's arguments.
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class MatmulPlan:
    """How factors of certain shapes and strides are multiplied.

    Attributes
    ----------
    shape : tuple of int
        Of the result.
    copied : pair of shapes, or None
        The shapes to copy the factors to first, None for a factor that is not copied; None if neither is.
    direct : bool
        Whether cuBLAS can write to a result of the given strides.
    empty : bool
        Whether there is nothing to multiply, and the result is zeros or has no entries.
    transposed : bool
        Whether the transposed product is computed, with the factors exchanged.
    routine : str
    sizes, left, right, result : tuple of int
        The arguments of the routine, except for addresses, types and scalars.
    """

    shape: tuple[int, ...]
    copied: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None
    direct: bool = True
    empty: bool = False
    transposed: bool = False
    routine: str = ""
    sizes: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    result: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        kind: str,
        a_shape: tuple[int, ...],
        a_strides: tuple[int, ...],
        b_shape: tuple[int, ...],
        b_strides: tuple[int, ...],
        y_shape: tuple[int, ...] | None = None,
        y_strides: tuple[int, ...] = (),
    ) -> "MatmulPlan":
        """The plan for two factors, and for a result if it is given."""
        size, row, column = np.dtype(kind).itemsize, len(a_shape) == 1, len(b_shape) == 1
        left, right = Factor(a_shape, a_strides, row, False), Factor(b_shape, b_strides, False, column)
        (m, k), (depth, n) = left.shape[-2:], right.shape[-2:]
        if k != depth:
            raise ValueError(f"matmul: {a_shape} and {b_shape} do not fit, {k} columns and {depth} rows")
        batch = left.batch if left.batch == right.batch else np.broadcast_shapes(left.batch, right.batch)
        count = prod(batch)
        shape = (*batch, *(() if row else (m,)), *(() if column else (n,)))
        if y_shape not in (None, shape):
            raise ValueError(f"matmul: {a_shape} times {b_shape} has shape {shape}, and out has {y_shape}")
        if not prod(shape) or not k:
            return cls(shape, empty=True)
        if max(m, n, k, count) > LARGEST:
            raise ValueError(f"matmul: {count} products of {m} x {k} and {k} x {n} are too large for 32-bit sizes")
        y = Factor(shape, y_strides or _dense(shape, size), row, column).matrix(batch, size)
        if y is None or (y.apart == 0 and count > 1):
            return cls(shape, direct=False)
        a, b = left.matrix(batch, size), right.matrix(batch, size)
        if a is None or b is None:
            return cls(shape, (None if a else left.whole(batch), None if b else right.whole(batch)))
        if count > 1 and b.apart == 0:
            a, y, count = _joined(a, y, count)
        elif count > 1 and a.apart == 0:
            b, y, count = _joined(b.transposed(), y.transposed(), count)
            b, y = b.transposed(), y.transposed()
        transposed = bool(y.by_rows)
        if transposed:
            # cuBLAS stores results by columns; a result by rows is the transposed product by columns.
            a, b, y = b.transposed(), a.transposed(), y.transposed()
        sizes = (a.by_rows, b.by_rows, y.rows, y.columns, a.columns)
        if count == 1:
            return cls(
                *(shape, None, True, False, transposed, "cublasGemmEx", sizes, (a.leading,), (b.leading,), (y.leading,))
            )
        return cls(
            *(shape, None, True, False, transposed, "cublasGemmStridedBatchedEx", sizes),
            *((a.leading, a.apart), (b.leading, b.apart), (y.leading, y.apart, count)),
        )


class MatrixLayout(NamedTuple):
    """The layout of a batch of matrices in memory, in the terms of cuBLAS's arguments.

    ``down`` is the distance in entries between rows, ``across`` between columns, ``apart`` between matrices.
    ``by_rows`` is 1 where rows are stored one after the other and 0 where columns are, ``leading`` apart each.
    """

    rows: int
    columns: int
    down: int
    across: int
    apart: int
    by_rows: int
    leading: int

    def transposed(self) -> "MatrixLayout":
        """The same memory with rows and columns exchanged."""
        rows, columns, down, across, apart, by_rows, leading = self
        return MatrixLayout(columns, rows, across, down, apart, 1 - by_rows, leading)


def _matrix(rows: int, columns: int, down: int, across: int, apart: int) -> MatrixLayout | None:
    """The layout of matrices; None if neither rows nor columns are contiguous, or if they overlap.

    An axis of one entry may have any stride.
    """
    if (across == 1 or columns == 1) and (rows == 1 or columns <= down <= LARGEST):
        return MatrixLayout(rows, columns, down, across, apart, 1, down if rows > 1 else columns)
    if (down == 1 or rows == 1) and (columns == 1 or rows <= across <= LARGEST):
        return MatrixLayout(rows, columns, down, across, apart, 0, across if columns > 1 else rows)
    return None


def _joined(x: MatrixLayout, y: MatrixLayout, count: int) -> tuple[MatrixLayout, MatrixLayout, int]:
    """A batch ``x`` times one matrix gives ``y``: both as one matrix of more rows, if their strides allow it."""
    tall = []
    for rows, columns, down, across, apart, *_ in (x, y):
        down = apart if rows == 1 else down
        fits = 0 < apart == rows * down and rows * count <= LARGEST
        joined = _matrix(rows * count, columns, down, across, 0) if fits else None
        if joined is None:
            return x, y, count
        tall.append(joined)
    return tall[0], tall[1], 1


def _dense(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Strides of a new C-contiguous array."""
    strides = []
    for n in reversed(shape):
        strides.append(size)
        size *= n
    return tuple(reversed(strides))


class Factor:
    """An array as a batch of matrices; a vector is one row or one column if ``row`` or ``column`` is True."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], row: bool, column: bool) -> None:
        self.given = shape
        if column:
            shape, strides = (*shape, 1), (*strides, 0)
        if row:
            shape, strides = (*shape[:-1], 1, shape[-1]), (*strides[:-1], 0, strides[-1])
        # The stride of an axis of one entry has no meaning, and may be negative, even after a copy.
        self.strides = tuple(step if n > 1 else 0 for n, step in zip(shape, strides, strict=True))
        self.shape, self.batch = shape, shape[:-2]

    def matrix(self, batch: tuple[int, ...], size: int) -> MatrixLayout | None:
        """The matrices over a whole batch, for entries of ``size`` bytes; None if cuBLAS has no form for them."""
        apart, (down, across) = self.apart(batch), self.strides[-2:]
        if apart is None or down % size or across % size or apart % size or min(down, across, apart) < 0:
            return None
        rows, columns = self.shape[-2:]
        return _matrix(rows, columns, down // size, across // size, apart // size)

    def apart(self, batch: tuple[int, ...]) -> int | None:
        """The constant distance in bytes from matrix to matrix over a whole batch; None if it is not constant."""
        step: int | None = None
        reach = 0
        own, steps = self.batch, self.strides[:-2]
        for i in range(1, len(batch) + 1):
            if batch[-i] == 1:
                continue
            stride = steps[-i] if i <= len(own) and own[-i] != 1 else 0
            if step is not None and stride != reach:
                return None
            step, reach = stride if step is None else step, stride * batch[-i]
        return step or 0

    def whole(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a copy that cuBLAS has a form for: over the whole batch if matrices are not evenly spaced."""
        return self.given if self.apart(batch) is not None else (*batch, *self.given[len(self.batch) :])
