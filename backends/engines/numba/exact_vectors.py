"""Winograd's transforms of whole numbers as LLVM instructions: float64 before the products, int64 after them.

An operand is cut into slices while it is transformed: a slice is ``round(v)`` for ``v = x * factor``, and the next one
``round((v - round(v)) * again)``. Numbers that are not finite become 0. After the products the transforms compute
modulo 2**64, in which the division by 576 is a product with the inverse of 9 and a shift by 6 bits.

All addresses and distances are numbers of bytes, int64.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .compiler import instruction
from .exact_numbers import ABOVE_SLICES
from .winograd_vectors import Matrix, Vectors, both_sides, listed, load_points, store_points, vector_lanes

cgutils: Any = untyped

_DOUBLE, _WORD = ir.DoubleType(), ir.IntType(64)
# Times 9 it is 1 modulo 2**64.
_NINTH = 0x8E38E38E38E38E39 - (1 << 64)


@cache
def lanes() -> int:
    """Float64 numbers of a vector."""
    return vector_lanes() // 2


class _Doubles(Vectors):
    """Vectors of float64."""

    def __init__(self, builder: Any, count: int) -> None:
        super().__init__(builder, count, _DOUBLE)

    def function(self, name: str, *values: Any) -> Any:
        """A function of LLVM, of vectors."""
        kind = ir.FunctionType(self.kind, [self.kind] * len(values))
        found = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self.lanes}f64")
        return self.builder.call(found, values)

    def slice(self, value: Any, again: Any) -> Any:
        """The first slice of ``value``, or with a vector ``again`` the second."""
        whole = self.function("rint", value)
        if again is not None:
            whole = self.function("rint", self.builder.fmul(self.builder.fsub(value, whole), again))
        most = ir.Constant(self.kind, [ABOVE_SLICES] * self.lanes)
        # False for NaN.
        known = self.builder.fcmp_ordered("<", self.function("fabs", whole), most)
        return self.builder.select(known, whole, ir.Constant(self.kind, None))


class _Wholes(Vectors):
    """Vectors of int64, with sums modulo 2**64."""

    def __init__(self, builder: Any, count: int) -> None:
        super().__init__(builder, count, _WORD)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.add(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.builder.sub(a, b)

    def scale(self, factor: float, a: Any) -> Any:
        """By shifts and sums, since not every processor multiplies such vectors."""
        if factor != int(factor):
            raise ValueError(f"the transform must be of whole numbers, got a factor {factor}")
        left, total = abs(int(factor)), None
        for bit in range(left.bit_length()):
            if left >> bit & 1:
                term = self.builder.shl(a, ir.Constant(self.kind, [bit] * self.lanes)) if bit else a
                total = term if total is None else self.builder.add(total, term)
        return self.builder.neg(total) if factor < 0 else total

    def common(self, factors: Sequence[float]) -> float:
        return min((a for a in factors if a), key=abs)

    def divided(self, value: Any) -> Any:
        """576 times a number of less than 57 bits, modulo 2**64, to that number."""
        product = self.builder.mul(value, ir.Constant(self.kind, [_NINTH] * self.lanes))
        return self.builder.ashr(product, ir.Constant(self.kind, [6] * self.lanes))

    def load_doubles(self, address: Any) -> Any:
        """A vector of whole numbers in float64."""
        return self.builder.fptosi(_Doubles(self.builder, self.lanes).load(address), self.kind)


def slices_to_points(matrix: Matrix, second: bool) -> Any:
    """Instruction ``f(cells, offset, factor, again, points, pitch, squares)``: slices of cells, transformed, to points.

    At ``cells`` are the addresses of cells, to each of which ``offset`` is added. ``factor`` is the address of a vector
    that all are multiplied by. The squares of each point are added to the vectors at ``squares``. ``second`` is whether
    it is the second slice, and ``again`` its factor.
    """

    def transform(
        context: Any, cells: Any, offset: Any, factor: Any, again: Any, points: Any, pitch: Any, squares: Any
    ) -> Any:
        return types.void(*[types.int64] * 3, types.float64, *[types.int64] * 3), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        cells, offset, factor, again, points, pitch, squares = values
        of, inner = _Doubles(builder, lanes()), len(matrix[0])
        unit, more = of.load(factor), of.spread(again) if second else None

        def load(j: int, k: int) -> Any:
            return of.slice(builder.fmul(of.load(listed(builder, cells, j * inner + k, offset)), unit), more)

        results = both_sides(of, matrix, load)
        store_points(of, results, points, pitch)
        for i, value in enumerate(value for row in results for value in row):
            place = builder.add(squares, ir.Constant(_WORD, 8 * of.lanes * i))
            of.store(of.add(of.load(place), builder.fmul(value, value, flags=("contract",))), place)
        return context.get_dummy_value()

    return instruction(transform)


def points_to_numbers(matrix: Matrix, whole: bool, count: int) -> Any:
    """Instruction ``f(points, lower, pitch, unit, scale, factor, bias, cells, offset)``: from products to results.

    The transformed numbers are quanta ``q``. With ``count`` 2 those of the points at ``lower`` are added, times
    ``unit``. The result ``q * scale * factor + bias``, where ``factor`` and ``bias`` are addresses of vectors, is
    written to the addresses at ``cells`` plus ``offset``. ``whole`` is whether points are int64, not float64.
    """

    def transform(
        context: Any,
        points: Any,
        lower: Any,
        pitch: Any,
        unit: Any,
        scale: Any,
        factor: Any,
        bias: Any,
        cells: Any,
        offset: Any,
    ) -> Any:
        words, numbers = [types.int64] * 3, [types.float64] * 2
        return types.void(*words, *numbers, *[types.int64] * 4), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        points, lower, pitch, unit, scale, factor, bias, cells, offset = values
        of = _Doubles(builder, lanes())
        scale, factor, bias = of.spread(scale), of.load(factor), of.load(bias)
        found = [_quanta(of, matrix, whole, points, pitch)]
        if count == 2:
            unit = of.spread(unit)
            found.append([builder.fmul(q, unit) for q in _quanta(of, matrix, whole, lower, pitch)])
        for i, parts in enumerate(zip(*found, strict=True)):
            total = builder.fadd(*parts) if count == 2 else parts[0]
            total = builder.fadd(builder.fmul(builder.fmul(total, scale), factor), bias)
            of.store(total, listed(builder, cells, i, offset))
        return context.get_dummy_value()

    return instruction(transform)


def _quanta(of: _Doubles, matrix: Matrix, whole: bool, points: Any, pitch: Any) -> list[Any]:
    """The transformed points at an address, as float64."""
    words, inner = _Wholes(of.builder, of.lanes), len(matrix[0])

    def load(j: int, k: int) -> Any:
        place = of.builder.add(points, of.builder.mul(pitch, ir.Constant(_WORD, j * inner + k)))
        return words.load(place) if whole else words.load_doubles(place)

    results = both_sides(words, matrix, load)
    return [of.builder.sitofp(words.divided(value), of.kind) for row in results for value in row]


def totals_to_quanta(matrix: Matrix) -> Any:
    """Instruction ``f(points, pitch, quanta, step)``: int64 points, added to quanta that are ``step`` apart."""

    def transform(context: Any, points: Any, pitch: Any, quanta: Any, step: Any) -> Any:
        return types.void(*[types.int64] * 4), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        points, pitch, quanta, step = values
        of = _Wholes(builder, lanes())
        results = both_sides(of, matrix, load_points(of, matrix, points, pitch))
        for i, value in enumerate(value for row in results for value in row):
            place = builder.add(quanta, builder.mul(step, ir.Constant(_WORD, i)))
            of.store(of.add(of.load(place), of.divided(value)), place)
        return context.get_dummy_value()

    return instruction(transform)
