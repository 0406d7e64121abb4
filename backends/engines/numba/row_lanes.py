"""Sums and maxima over the entries of a row, in vectors of one length and a fixed order.

The last vector of a row is filled up: it is copied to memory of its own, after which stands what changes no result.
"""

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from .lanes import Code, Lanes, cgutils
from .vector_math import Vector

#: Entries of a vector.
LENGTH = 16


class Part:
    """Entries of a row from index ``at``, as many as a vector has, or ``count`` of them."""

    def __init__(self, lanes: Lanes, at: Any, count: Any = None) -> None:
        self.lanes, self.at, self.count = lanes, at, count

    def load(self, array: Any, begin: Any, filling: float | Vector = 0.0) -> Vector:
        """Entries of the array whose row begins at ``begin``; what is missing is the filling."""
        code = self.lanes.code
        at = code.add(begin, self.at)
        if self.count is None:
            return Vector(self.lanes, self.lanes.load(array, at))
        filled = filling.value if isinstance(filling, Vector) else self.lanes.constant(filling)
        place = self._memory()
        self.lanes.store(filled, place, 0)
        with code.each(0, self.count) as i:
            code.builder.store(code.read(array, code.add(at, i)), code.builder.gep(place, [i]))
        return Vector(self.lanes, self.lanes.load(place, 0))

    def store(self, value: Vector, array: Any, begin: Any) -> None:
        """Write the entries."""
        code = self.lanes.code
        at = code.add(begin, self.at)
        if self.count is None:
            self.lanes.store(value.value, array, at)
            return
        place = self._memory()
        self.lanes.store(value.value, place, 0)
        with code.each(0, self.count) as i:
            code.builder.store(code.read(place, i), code.builder.gep(array, [code.add(at, i)]))

    def _memory(self) -> Any:
        lanes = self.lanes
        place = cgutils.alloca_once(lanes.builder, ir.ArrayType(lanes.code.number, LENGTH))
        return lanes.builder.bitcast(place, lanes.code.number.as_pointer())


def parts(code: Code, count: Any) -> Iterator[Part]:
    """The vectors of a row of ``count`` entries: a loop over whole ones, and the rest."""
    builder, lanes = code.builder, Lanes(code, LENGTH)
    whole = builder.sdiv(count, code.word(LENGTH))
    with code.each(0, whole) as i:
        yield Part(lanes, code.times(i, LENGTH))
    done = code.times(whole, LENGTH)
    rest = builder.sub(count, done)
    with builder.if_then(builder.icmp_signed(">", rest, code.word(0))):
        yield Part(lanes, done, rest)


class Running:
    """A vector that is combined with others in a loop, and its entries with each other at the end."""

    def __init__(self, code: Code, start: float, combine: Callable[[Vector, Vector], Vector]) -> None:
        self.lanes, self.combine = Lanes(code, LENGTH), combine
        self.place = code.variable(self.lanes.constant(start))

    def include(self, value: Vector) -> None:
        """Combine with a vector."""
        so_far = Vector(self.lanes, self.lanes.builder.load(self.place))
        self.lanes.builder.store(self.combine(so_far, value).value, self.place)

    def all(self) -> Vector:
        """All entries combined, in each entry of the result."""
        builder, value = self.lanes.builder, Vector(self.lanes, self.lanes.builder.load(self.place))
        step = LENGTH // 2
        while step:
            swapped = ir.Constant(ir.VectorType(ir.IntType(32), LENGTH), [i ^ step for i in range(LENGTH)])
            value = self.combine(value, Vector(self.lanes, builder.shuffle_vector(value.value, value.value, swapped)))
            step //= 2
        return value

    def number(self) -> Any:
        """All entries combined."""
        return self.lanes.builder.extract_element(self.all().value, ir.Constant(ir.IntType(32), 0))


def added(so_far: Vector, value: Vector) -> Vector:
    """The sum."""
    return so_far + value


def larger(so_far: Vector, value: Vector) -> Vector:
    """The maximum; NaN stays."""
    builder = so_far.lanes.builder
    wins = builder.fcmp_unordered(">", value.value, so_far.value)
    wins = builder.and_(wins, so_far.is_number())
    return Vector(so_far.lanes, builder.select(wins, value.value, so_far.value))
