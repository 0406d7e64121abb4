"""Vectors of exact numerics: float64, widened from what is stored and rounded to it, each operation rounded separately.

Arrays are stored in float32, with +0 for magnitudes below 2**-125 and for -0. float64 arrays are read and written as
they are.
"""

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils as untyped

from .lanes import Code, Lanes

cgutils: Any = untyped

_DOUBLE, _WORD, _HALF = ir.DoubleType(), ir.IntType(64), ir.IntType(32)
_MAGNITUDE = (1 << 63) - 1
# As a float32: the bits of 2**-125, and all but the sign.
_SMALLEST, _HALF_MAGNITUDE = (127 - 125) << 23, (1 << 31) - 1


class ExactLanes(Lanes):
    """Arithmetic of float64 vectors in which no product is fused with a sum."""

    flags = ()

    def __init__(self, code: Code, length: int) -> None:
        super().__init__(code, length)
        self.kind, self.whole = ir.VectorType(_DOUBLE, length), _WORD

    def rounded(self, x: Any) -> Any:
        """The nearest whole number, of two the even one."""
        return self._call("llvm.rint", x)

    def smaller(self, a: Any, b: Any) -> Any:
        """The smaller number; ``b`` where one is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger number; ``b`` where one is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def magnitude(self, x: Any) -> Any:
        """The number without its sign."""
        return self._call("llvm.fabs", x)

    def magnitude_bits(self, x: Any) -> Any:
        """The bits of the magnitude, as integers: in the order of magnitudes, and above them NaN."""
        words = self.vector(_WORD)
        bits = self.builder.bitcast(x, words)
        return self.builder.and_(bits, ir.Constant(words, [_MAGNITUDE] * self.length))

    def larger_word(self, a: Any, b: Any) -> Any:
        """The larger of two integers."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def flushed(self, x: Any) -> Any:
        """float32 as it is stored."""
        halves = self.vector(_HALF)
        bits = self.builder.and_(self.builder.bitcast(x, halves), ir.Constant(halves, [_HALF_MAGNITUDE] * self.length))
        is_tiny = self.builder.icmp_signed("<", bits, ir.Constant(halves, [_SMALLEST] * self.length))
        return self.builder.select(is_tiny, ir.Constant(x.type, [0.0] * self.length), x)

    def read(self, array: Any, at: Any) -> Any:
        """Entries of a stored array from index ``at``, in float64."""
        x = self.load(array, at)
        return x if array.type.pointee == _DOUBLE else self.builder.fpext(self.flushed(x), self.kind)

    def write(self, x: Any, array: Any, at: Any) -> None:
        """Store float64 numbers in an array from index ``at``."""
        if array.type.pointee != _DOUBLE:
            x = self.flushed(self.builder.fptrunc(x, self.vector(array.type.pointee)))
        self.store(x, array, at)

    def _call(self, name: str, x: Any) -> Any:
        kind = ir.FunctionType(x.type, [x.type])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"{name}.v{self.length}f64")
        return self.builder.call(function, [x])


def over(code: Code, count: Any, lengths: tuple[int, ...] = (16, 1)) -> Iterator[tuple[ExactLanes, Any]]:
    """`Code.over_once` in vectors of exact numerics."""
    return code.over_once(count, lengths, ExactLanes)
