r"""Winograd's transforms as LLVM instructions: ``M d M^T`` of a small matrix ``d`` whose entries are vectors.

A vector holds neighbouring channels of one cell. The matrix ``M`` is a constant, and instructions are generated for it:
without products by 0 and 1, and with common terms of two rows or columns computed once. LLVM's own vectoriser gives up
on loops over this many arrays that might overlap.

The points of `xpnn.layers.convolution.winograd_transforms` come in pairs ``p, -p``, so that pairs of rows (or of
columns) are equal up to signs. Two such rows are ``E + O`` and ``E - O``, with ``E`` the terms of equal sign and ``O``
the others; two such columns multiply the sum and the difference of two entries.

All addresses and distances are numbers of bytes, int64.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target as untyped

from .compiler import instruction

cpu_target: Any = untyped
Matrix = tuple[tuple[float, ...], ...]

_NUMBER, _WORD, _INDEX = ir.FloatType(), ir.IntType(64), ir.IntType(32)
#: Flags with which LLVM may fuse a product and a sum.
_FUSE = ("contract",)
# Smaller parts of a coefficient are rounding errors of the matrix.
_NOTHING = 1e-12


@cache
def vector_lanes() -> int:
    """Channels of a vector: those of one register of 512 bits, or of 256 where there is none."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    return 16 if "+avx512f" in features else 8


class Vectors:
    """Vectors of ``lanes`` numbers, float32 unless another type is given, in the code of a builder."""

    def __init__(self, builder: Any, lanes: int, number: Any = _NUMBER) -> None:
        self.builder, self.lanes, self.kind = builder, lanes, ir.VectorType(number, lanes)

    def load(self, address: Any) -> Any:
        """A vector of contiguous numbers."""
        return self.builder.load(self.builder.inttoptr(address, self.kind.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        """The reverse of `load`."""
        self.builder.store(value, self.builder.inttoptr(address, self.kind.as_pointer()), align=4)

    def spread(self, number: Any) -> Any:
        """A vector of equal numbers."""
        value = ir.Constant(self.kind, ir.Undefined)
        first = self.builder.insert_element(value, number, ir.Constant(_INDEX, 0))
        return self.builder.shuffle_vector(first, value, ir.Constant(ir.VectorType(_INDEX, self.lanes), None))

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return self.builder.fadd(a, b, flags=_FUSE)

    def subtract(self, a: Any, b: Any) -> Any:
        """``a - b``."""
        return self.builder.fsub(a, b, flags=_FUSE)

    def scale(self, factor: float, a: Any) -> Any:
        """``factor a``."""
        if factor == 1:
            return a
        return self.builder.fmul(ir.Constant(self.kind, [factor] * self.lanes), a, flags=_FUSE)

    def common(self, factors: Sequence[float]) -> float:
        """The factor that a sum of terms is divided by: that of its last term."""
        return next(a for a in reversed(factors) if abs(a) > _NOTHING)

    def combine(self, factors: Sequence[float], values: Sequence[Any]) -> Any:
        """The sum of ``factors`` times ``values``, some of which are not 0."""
        terms = [(f, v) for f, v in zip(factors, values, strict=True) if abs(f) > _NOTHING]
        # A term to start with that needs no product.
        terms.sort(key=lambda term: term[0] != 1)
        total = self.scale(*terms[0])
        for factor, value in terms[1:]:
            total = self.subtract(total, value) if factor == -1 else self.add(total, self.scale(factor, value))
        return total


def _alike(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether entries are equal up to signs, of which some, and not all, agree."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if abs(x) > _NOTHING or abs(y) > _NOTHING]
    same = [abs(x - y) <= _NOTHING for x, y in pairs]
    opposite = [abs(x + y) <= _NOTHING for x, y in pairs]
    return all(s or o for s, o in zip(same, opposite, strict=True)) and any(same) and any(opposite)


def _pairs(rows: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Rows that are `_alike`, each in one pair at most."""
    found: list[tuple[int, int]] = []
    left = list(range(len(rows)))
    while left:
        i = left.pop(0)
        j = next((j for j in left if _alike(rows[i], rows[j])), None)
        if j is not None:
            left.remove(j)
            found.append((i, j))
    return found


def _product(of: Vectors, matrix: Matrix, values: Sequence[Any]) -> list[Any]:
    """The vectors ``matrix`` times ``values``."""
    columns, values = [list(column) for column in zip(*matrix, strict=True)], list(values)
    # Two additions save one in each row.
    for i, j in _pairs(columns) if len(matrix) > 2 else []:
        values[i], values[j] = of.add(values[i], values[j]), of.subtract(values[i], values[j])
        agree = [abs(a - b) <= _NOTHING for a, b in zip(columns[i], columns[j], strict=True)]
        columns[j] = [0.0 if same else a for a, same in zip(columns[i], agree, strict=True)]
        columns[i] = [a if same else 0.0 for a, same in zip(columns[i], agree, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    results: list[Any] = [None] * len(rows)
    for i, j in _pairs(rows):
        equal = [a if abs(a - b) <= _NOTHING else 0.0 for a, b in zip(rows[i], rows[j], strict=True)]
        other = [a - e for a, e in zip(rows[i], equal, strict=True)]
        factor = of.common(other)
        even, odd = of.combine(equal, values), of.combine([a / factor for a in other], values)
        results[i], results[j] = of.add(even, of.scale(factor, odd)), of.add(even, of.scale(-factor, odd))
    return [of.combine(row, values) if made is None else made for row, made in zip(rows, results, strict=True)]


def both_sides(of: Vectors, matrix: Matrix, load: Callable[[int, int], Any]) -> list[list[Any]]:
    """``matrix d matrix^T``, where ``load`` returns an entry of ``d``."""
    inner = len(matrix[0])
    columns = [_product(of, matrix, [load(j, k) for j in range(inner)]) for k in range(inner)]
    return [_product(of, matrix, [column[a] for column in columns]) for a in range(len(matrix))]


def cells_to_points(matrix: Matrix, lanes: int) -> Any:
    """Instruction ``f(cells, offset, points, pitch)``: from cells anywhere in memory to points at equal distances.

    At ``cells`` are the addresses of the entries of ``d``, row by row, to each of which ``offset`` is added.
    """

    def transform(context: Any, cells: Any, offset: Any, points: Any, pitch: Any) -> Any:
        return types.void(*[types.int64] * 4), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        cells, offset, points, pitch = values
        of, inner = Vectors(builder, lanes), len(matrix[0])
        results = both_sides(of, matrix, lambda j, k: of.load(listed(builder, cells, j * inner + k, offset)))
        store_points(of, results, points, pitch)
        return context.get_dummy_value()

    return instruction(transform)


def points_to_cells(matrix: Matrix, lanes: int) -> Any:
    """Instruction ``f(points, pitch, bias, least, cells, offset)``, the reverse of `cells_to_points`.

    The vector at the address ``bias`` is added, and results up to the float32 ``zero_up_to`` become 0.
    """

    def transform(context: Any, points: Any, pitch: Any, bias: Any, zero_up_to: Any, cells: Any, offset: Any) -> Any:
        return types.void(*[types.int64] * 3, types.float32, *[types.int64] * 2), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        points, pitch, bias, zero_up_to, cells, offset = values
        of = Vectors(builder, lanes)
        more, zero = of.load(bias), ir.Constant(of.kind, None)
        limit = of.spread(zero_up_to)
        results = both_sides(of, matrix, load_points(of, matrix, points, pitch))
        for i, value in enumerate(value for row in results for value in row):
            total = of.add(value, more)
            # False if either is NaN.
            total = builder.select(builder.fcmp_ordered("<=", total, limit), zero, total)
            of.store(total, listed(builder, cells, i, offset))
        return context.get_dummy_value()

    return instruction(transform)


def evenly_spaced(matrix: Matrix, lanes: int) -> Any:
    """Instruction ``f(source, step, target, pitch)``: entries of ``d`` and results are at equal distances in memory."""

    def transform(context: Any, source: Any, step: Any, target: Any, pitch: Any) -> Any:
        return types.void(*[types.int64] * 4), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, step, target, pitch = values
        of = Vectors(builder, lanes)
        store_points(of, both_sides(of, matrix, load_points(of, matrix, source, step)), target, pitch)
        return context.get_dummy_value()

    return instruction(transform)


def listed(builder: Any, cells: Any, i: int, offset: Any) -> Any:
    """The ``i``-th address of those at ``cells``, plus an offset."""
    place = builder.inttoptr(builder.add(cells, ir.Constant(_WORD, 8 * i)), _WORD.as_pointer())
    return builder.add(builder.load(place), offset)


def _point(builder: Any, points: Any, pitch: Any, i: int) -> Any:
    return builder.add(points, builder.mul(pitch, ir.Constant(_WORD, i)))


def load_points(of: Vectors, matrix: Matrix, points: Any, pitch: Any) -> Callable[[int, int], Any]:
    """A function that loads an entry of ``d``, of entries at equal distances."""
    inner = len(matrix[0])
    return lambda j, k: of.load(_point(of.builder, points, pitch, j * inner + k))


def store_points(of: Vectors, results: list[list[Any]], points: Any, pitch: Any) -> None:
    """Store results at equal distances."""
    for i, value in enumerate(value for row in results for value in row):
        of.store(value, _point(of.builder, points, pitch, i))
